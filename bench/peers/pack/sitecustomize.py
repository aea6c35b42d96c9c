"""Turns this pack's worker, before anything of it has run, into the C program that bench/peers.ts compiles.

So the server is the real one from end to end: it spawns, expects and supervises this worker as any other.
"""

import os
from pathlib import Path

_WORKER = Path(__file__).parents[2] / ".build" / "worker"

os.execv(_WORKER, [str(_WORKER)])
