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
        with _MUTEX:
            if _CURRENT.get(os.getpid()) is airlock:
                del _CURRENT[os.getpid()]
        airlock.close()
    return session().open(folder, manifest=manifest, entry=entry)
