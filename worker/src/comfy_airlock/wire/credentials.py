"""Who listens at the other end of a Unix socket, as the kernel knows it. Twin of the server's own check in ``door.ts``.

A path says nothing of who bound it, and what a peer is sent may be secret. Where the system does not tell (SO_PEERCRED
is Linux's), the permissions of the socket's folder are all there is.
"""

from __future__ import annotations

import os
import socket
from struct import Struct
from typing import Final

from comfy_airlock.wire.errors import Unauthorized

_UCRED: Final = Struct("=iII")
"""Process, user and group."""
_ROOT: Final = 0


def check_server(connection: socket.socket, path: str) -> None:
    """Lets a server pass that runs as this process's own user, or as root.

    Raises:
        Unauthorized: it is another user's.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    if uid not in (_ROOT, os.geteuid()):
        raise Unauthorized(
            f"the server at {path} is user {uid}'s, and this process is user {os.geteuid()}'s",
            hint="connect to a server of your own: set AIRLOCK_SOCKET to its path",
        )
