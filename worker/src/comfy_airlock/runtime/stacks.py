"""The worker's Python stacks, for the server: of a crash, and of what runs whenever it asks by a signal.

Both are written by faulthandler from a signal's handler in C, to a pipe that the worker was spawned with, so they come
also while native code holds the interpreter's lock for ever.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from typing import Final

STACKS_DESCRIPTOR: Final = 4
DUMP_SIGNAL: Final = 61
"""A real-time signal, as packs and libraries use few. Twin of ``src/server/workers/stack-pipe.ts``."""
_STDERR_DESCRIPTOR: Final = 2


def hold() -> None:
    """Has faulthandler write to the server from now on, instead of to stderr."""
    if not sys.platform.startswith("linux"):
        return
    os.set_inheritable(STACKS_DESCRIPTOR, False)
    faulthandler.enable(file=STACKS_DESCRIPTOR)
    faulthandler.register(DUMP_SIGNAL, file=STACKS_DESCRIPTOR, all_threads=True, chain=False)
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """In a forked child: a crash of its own is not this worker's, and goes to the log like all else that it writes."""
    faulthandler.unregister(DUMP_SIGNAL)
    if faulthandler.is_enabled():
        faulthandler.enable(file=_STDERR_DESCRIPTOR)
    os.close(STACKS_DESCRIPTOR)
