"""A handle: the name that a host's extension class gives an object in its worker, which crosses as the name alone."""

from __future__ import annotations

from typing import Any

from comfy_airlock.wire.errors import ValueInvalid
from comfy_airlock.wire.registry import register


class RemoteObjectHandle:
    """Names an object that lives in another process.

    Attributes:
        object_id: what the extension that has it knows it by.
        type_name: what its type is called, for people.
    """

    def __init__(self, object_id: str, type_name: str) -> None:
        self.object_id = object_id
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<RemoteObjectHandle of a {self.type_name}, {self.object_id}>"


# Hosts that pickle or compare classes by their names know it by this one.
RemoteObjectHandle.__module__ = "pyisolate._internal.remote_handle"


def _rebuild(state: Any) -> RemoteObjectHandle:
    if not (isinstance(state, list) and len(state) == 2 and all(isinstance(each, str) for each in state)):
        raise ValueInvalid("a handle has an id and the name of a type")
    return RemoteObjectHandle(*state)


register(
    RemoteObjectHandle,
    "pyisolate.RemoteObjectHandle",
    lambda handle: [handle.object_id, handle.type_name],
    _rebuild,
)
