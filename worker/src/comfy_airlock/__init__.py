"""Airlock: every ComfyUI node pack in a process and an environment of its own.

The host's side of it is :func:`connect`; see ``comfy_airlock.host``. A worker's side is ``comfy_airlock.runtime``,
which a server starts. Names below are looked up when first used, so that a worker does not pay for what only a host
needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_airlock.calls.context import cancelled as cancelled
    from comfy_airlock.calls.context import check_cancelled as check_cancelled
    from comfy_airlock.calls.context import report_progress as report_progress
    from comfy_airlock.calls.remote import RemoteFunction as RemoteFunction
    from comfy_airlock.calls.remote import RemoteIterator as RemoteIterator
    from comfy_airlock.calls.remote import RemoteObject as RemoteObject
    from comfy_airlock.calls.remote import remote as remote
    from comfy_airlock.host.client import Airlock as Airlock
    from comfy_airlock.host.client import Pack as Pack
    from comfy_airlock.host.client import Progress as Progress
    from comfy_airlock.host.client import connect as connect
    from comfy_airlock.runtime.host_link import emit as emit
    from comfy_airlock.runtime.host_link import on as on
    from comfy_airlock.runtime.host_link import share as share
    from comfy_airlock.wire.errors import AirlockError as AirlockError
    from comfy_airlock.wire.errors import Cancelled as Cancelled
    from comfy_airlock.wire.errors import DeadlineExceeded as DeadlineExceeded
    from comfy_airlock.wire.errors import Disconnected as Disconnected
    from comfy_airlock.wire.errors import LeaseGone as LeaseGone
    from comfy_airlock.wire.errors import PackHeld as PackHeld
    from comfy_airlock.wire.errors import ReferenceGone as ReferenceGone
    from comfy_airlock.wire.errors import RemoteError as RemoteError
    from comfy_airlock.wire.errors import ValueUnsupported as ValueUnsupported
    from comfy_airlock.wire.errors import WorkerDied as WorkerDied
    from comfy_airlock.wire.registry import Opaque as Opaque
    from comfy_airlock.wire.registry import allow_pickle as allow_pickle
    from comfy_airlock.wire.registry import register as register

__version__ = "0.1.0"

_HOMES = {
    "cancelled": "comfy_airlock.calls.context",
    "check_cancelled": "comfy_airlock.calls.context",
    "report_progress": "comfy_airlock.calls.context",
    "RemoteFunction": "comfy_airlock.calls.remote",
    "RemoteIterator": "comfy_airlock.calls.remote",
    "RemoteObject": "comfy_airlock.calls.remote",
    "remote": "comfy_airlock.calls.remote",
    "Airlock": "comfy_airlock.host.client",
    "Pack": "comfy_airlock.host.client",
    "Progress": "comfy_airlock.host.client",
    "connect": "comfy_airlock.host.client",
    "emit": "comfy_airlock.runtime.host_link",
    "on": "comfy_airlock.runtime.host_link",
    "share": "comfy_airlock.runtime.host_link",
    "AirlockError": "comfy_airlock.wire.errors",
    "Cancelled": "comfy_airlock.wire.errors",
    "DeadlineExceeded": "comfy_airlock.wire.errors",
    "Disconnected": "comfy_airlock.wire.errors",
    "LeaseGone": "comfy_airlock.wire.errors",
    "PackHeld": "comfy_airlock.wire.errors",
    "ReferenceGone": "comfy_airlock.wire.errors",
    "RemoteError": "comfy_airlock.wire.errors",
    "ValueUnsupported": "comfy_airlock.wire.errors",
    "WorkerDied": "comfy_airlock.wire.errors",
    "Opaque": "comfy_airlock.wire.registry",
    "allow_pickle": "comfy_airlock.wire.registry",
    "register": "comfy_airlock.wire.registry",
}

__all__ = [
    "Airlock",
    "AirlockError",
    "Cancelled",
    "DeadlineExceeded",
    "Disconnected",
    "LeaseGone",
    "Opaque",
    "Pack",
    "PackHeld",
    "Progress",
    "ReferenceGone",
    "RemoteError",
    "RemoteFunction",
    "RemoteIterator",
    "RemoteObject",
    "ValueUnsupported",
    "WorkerDied",
    "__version__",
    "allow_pickle",
    "cancelled",
    "check_cancelled",
    "connect",
    "emit",
    "on",
    "register",
    "remote",
    "report_progress",
    "share",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
