"""Conversions that hosts call themselves, before they call an extension and after."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_airlock.compat.crossing import HANDLE_ATTRIBUTE
from comfy_airlock.compat.remote_handle import RemoteObjectHandle
from comfy_airlock.compat.serializers import SerializerRegistry


def serialize_for_isolation(data: Any) -> Any:
    """The value with all that has a serializer, by the name of its very type, as what that makes of it.

    An object that keeps a handle becomes the handle. Tensors stay as they are.
    """
    registry = SerializerRegistry.get_instance()

    def convert(value: Any) -> Any:
        handle = getattr(value, HANDLE_ATTRIBUTE, None)
        if isinstance(handle, RemoteObjectHandle):
            return handle
        serialize = registry.get_serializer(type(value).__name__)
        if serialize is not None:
            return serialize(value)
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return _sequence(value, [convert(item) for item in value]) if isinstance(value, (list, tuple)) else value

    return convert(data)


async def deserialize_from_isolation(data: Any, extension: Any = None, _nested: bool = False) -> Any:
    """The value with each dictionary whose ``__type__`` is known as what its deserializer makes of it. Handles stay."""
    del extension, _nested
    registry = SerializerRegistry.get_instance()

    async def convert(value: Any) -> Any:
        if isinstance(value, dict):
            # By the name of its own type first, where it is a dictionary of the adapter's.
            for name in (type(value).__name__, value.get("__type__")):
                deserialize = registry.get_deserializer(name) if isinstance(name, str) else None
                if deserialize is not None:
                    made = deserialize(value)
                    return await made if inspect.isawaitable(made) else made
            return {key: await convert(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return _sequence(value, [await convert(item) for item in value])
        return value

    return await convert(data)


def deserialize_proxy_result(data: Any) -> Any:
    """As :func:`deserialize_from_isolation`, for what a worker got from its host."""
    registry = SerializerRegistry.get_instance()

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("__type__")
            deserialize = registry.get_deserializer(name) if isinstance(name, str) else None
            return deserialize(value) if deserialize else {key: convert(item) for key, item in value.items()}
        return _sequence(value, [convert(item) for item in value]) if isinstance(value, (list, tuple)) else value

    return convert(data)


def _sequence(like: Any, items: list[Any]) -> Any:
    """The items as the same kind of sequence; a named tuple takes them one by one."""
    cls: Any = type(like)
    if cls is list:
        return items
    return cls(*items) if hasattr(cls, "_fields") else cls(items)
