"""The way from this process to its host, where it is a worker: for code that has no other way to ask for it."""

from __future__ import annotations

from typing import Any, Final

_CURRENT: Final[dict[str, Any]] = {}
"""One per process, as its host is."""


def set_child_rpc_instance(rpc: Any) -> None:
    _CURRENT["rpc"] = rpc


def get_child_rpc_instance() -> Any:
    """The :class:`comfy_airlock.compat.rpc.AsyncRPC` of this worker; None in a host."""
    return _CURRENT.get("rpc")
