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
from typing import Final

LIFELINE_DESCRIPTOR: Final = 3
_F_SETSIG: Final = 10
"""Linux: which signal announces I/O. The fcntl module has no name for it."""


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
