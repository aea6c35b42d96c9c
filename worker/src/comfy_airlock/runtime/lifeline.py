"""The end of a worker whose server is gone, carried out by the kernel: no thread of ours has to run for it.

The server holds the other end of a socket pair, and nothing else does. When the server ends, however it ends, that end
closes, the kernel signals this one's owner, and the owner is this process group and the signal SIGKILL. That also ends
forked children, and native code that holds the interpreter's lock for ever.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
from typing import Any, Final

from comfy_airlock.wire.optional import standard

LIFELINE_DESCRIPTOR: Final = 3
_F_SETSIG: Final = 10
"""Linux: which signal announces I/O. The fcntl module has no name for it."""
_PR_SET_PDEATHSIG: Final = 1


def hold() -> socket.socket | None:
    """Ties this process group to the server. Returns what must stay open; None where this system has no such thing."""
    if not sys.platform.startswith("linux"):
        return None
    os.set_inheritable(LIFELINE_DESCRIPTOR, False)
    line = socket.socket(fileno=LIFELINE_DESCRIPTOR)
    fcntl.fcntl(line, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(line, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
    # The server may have died before the kernel was asked to tell.
    if select.select([line], [], [], 0)[0]:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return line


def die_with(parent: int) -> None:
    """Has the kernel end this process when its parent ends, too: for a kernel, or a sandbox, that signals no sockets.

    Args:
        parent: its process id.
    """
    if not sys.platform.startswith("linux"):
        return
    # ctypes takes longer to import than most that a worker imports: not before the server has let it in.
    libc: Any = standard("ctypes").CDLL(None)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0 and os.getppid() != parent:
        # It ended before the kernel was asked.
        os.killpg(os.getpgrp(), signal.SIGKILL)
