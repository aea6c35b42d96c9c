"""Turns this pack's worker into the C program that bench/peers.ts compiles, before anything of it has run.

Python imports the module of this name as it starts, here from the PYTHONPATH of the manifest. So the server is the real
one from end to end, with no option for this benchmark's sake: it spawns, expects and supervises this worker as any
other. Process id and variables, its token among them, stay what they are.
"""

import os
from pathlib import Path

_WORKER = Path(__file__).parents[2] / ".build" / "worker"

os.execv(_WORKER, [str(_WORKER)])
