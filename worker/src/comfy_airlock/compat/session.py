"""This process's connection to a server, made when the first extension is used: the one that AIRLOCK_SOCKET names, else
one of its own, which ends with it.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final

import comfy_airlock
from comfy_airlock.wire.errors import Disconnected

if TYPE_CHECKING:
    from comfy_airlock.host.client import Airlock, Pack

_MUTEX: Final = threading.Lock()
_CURRENT: Final[dict[int, Any]] = {}
"""By process id: a forked child has one of its own. One per process, as managers share it."""


def session() -> Airlock:
    """The connection."""
    with _MUTEX:
        airlock: Airlock | None = _CURRENT.get(os.getpid())
        if airlock is None:
            airlock = _CURRENT[os.getpid()] = comfy_airlock.connect()
        return airlock


def open_pack(folder: str, manifest: dict[str, Any], entry: dict[str, str]) -> Pack:
    """Opens a pack; connects anew where the server was restarted."""
    airlock = session()
    try:
        return airlock.open(folder, manifest=manifest, entry=entry)
    except Disconnected:
        close_session(airlock)
    return session().open(folder, manifest=manifest, entry=entry)


def close_session(which: Airlock | None = None) -> None:
    """Ends the connection, and all workers with it; the next use of an extension connects anew.

    Args:
        which: only if it is this one.
    """
    with _MUTEX:
        airlock: Airlock | None = _CURRENT.get(os.getpid())
        if airlock is None or which not in (None, airlock):
            return
        del _CURRENT[os.getpid()]
    airlock.close()
