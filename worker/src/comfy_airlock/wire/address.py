"""Where a server listens by default. Twin of ``src/transport/address.ts``."""

from __future__ import annotations

import os
from tempfile import gettempdir

from comfy_airlock.wire.errors import BadRequest
from comfy_airlock.wire.limits import SOCKET_PATH_BYTES_MAX


def check_socket_path(path: str) -> str:
    """The path itself, where the kernel takes it.

    Raises:
        BadRequest: it is too long for a Unix socket.
    """
    size = len(os.fsencode(path))
    if size <= SOCKET_PATH_BYTES_MAX:
        return path
    raise BadRequest(
        f"the socket path {path} has {size} bytes; a Unix socket takes {SOCKET_PATH_BYTES_MAX}",
        hint="set AIRLOCK_SOCKET to a shorter path",
    )


def default_socket_path() -> str:
    """AIRLOCK_SOCKET, else a socket in a folder that only this user can enter."""
    override = os.environ.get("AIRLOCK_SOCKET")
    if override:
        return check_socket_path(override)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = os.path.join(runtime, "airlock") if runtime else os.path.join(gettempdir(), f"airlock-{os.getuid()}")
    return check_socket_path(os.path.join(folder, "server.sock"))
