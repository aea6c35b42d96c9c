"""Values on their way between a host and its extensions, as the adapter wants them, in terms that Airlock's codec
knows.

Outgoing: what the adapter has a serializer for becomes what that makes of it; functions become callbacks; subclasses of
plain values become those; whatever else has no form of its own stays where it is, and its reference crosses. Incoming:
dictionaries with a known ``__type__`` become what the adapter makes of them. Tuples, types, exceptions and tensors are
the codec's, which keeps them what they are.
"""

from __future__ import annotations

import importlib
import inspect
from enum import Enum
from typing import Any, Final

from comfy_airlock.calls.remote import Remote, Revealed, remote
from comfy_airlock.compat.callables import Call, CallableForm, CallableProxy, outgoing, register_callables
from comfy_airlock.compat.remote_handle import RemoteObjectHandle
from comfy_airlock.compat.serializers import SerializerRegistry
from comfy_airlock.compat.this_child import get_child_rpc_instance
from comfy_airlock.wire.arrays import is_array_type
from comfy_airlock.wire.registry import Opaque, process_registry
from comfy_airlock.wire.standard_types import rebuild_for, serializer_for

HANDLE_ATTRIBUTE: Final = "_pyisolate_remote_handle"
"""Where an object keeps the handle by which the other process knows it: that crosses in its place."""

_PLAIN: Final = frozenset({str, int, float, bool, type(None), bytes})
_OF_CLASSES: Final = frozenset({"enum", "dataclass", "namedtuple"})
"""Names of values that have a class, whose state begins with the name of its module."""

_BASES: Final[tuple[Any, ...]] = (str, bytes, bytearray, bool, int, float, complex)


def call_here(function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Calls a function with arguments as they came; returns its result as it may go, or an awaitable of that."""
    result = function(*arrived(args), **arrived(keywords))
    return _going(result) if inspect.isawaitable(result) else going(result)


async def _going(awaitable: Any) -> Any:
    return going(await awaitable)


def going(value: Any, call: Call = call_here) -> Any:
    """The value as it crosses.

    Args:
        call: carries out the calls that the other side makes of functions in it.
    """
    return _Outgoing(SerializerRegistry.get_instance(), call).convert(value)


class _Outgoing:
    """One message's values."""

    def __init__(self, registry: SerializerRegistry, call: Call) -> None:
        self._registry = registry
        self._call = call

    def convert(self, value: Any) -> Any:
        cls: type = type(value)
        if cls in _PLAIN:
            return value
        if cls is dict or cls is list or cls is tuple:
            # An adapter may well have a serializer for a subclass of these, and not for themselves.
            return self._contents(value)
        handle = getattr(value, HANDLE_ATTRIBUTE, None)
        if isinstance(handle, RemoteObjectHandle):
            return handle
        serialize = self._registry.for_type(cls)
        if serialize is not None:
            state = serialize(value)
            # A serializer may hand a value on as it is.
            return self._formed(state) if type(state) is cls else self.convert(state)
        return self._formed(value)

    def _contents(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.convert(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(self.convert(item) for item in value)
        return [self.convert(item) for item in value]

    def _formed(self, value: Any) -> Any:
        """The value where Airlock knows its type, or what stands for it."""
        cls: type = type(value)
        if isinstance(value, Enum) or has_form(cls):
            return value
        if isinstance(value, (dict, list, tuple)):
            return self._contents(value)
        for base in _BASES:
            if isinstance(value, base):
                return base(value)
        if callable(value) and not isinstance(value, type):
            return outgoing(value, self._call)
        return remote(value)


def has_form(cls: type) -> bool:
    """Whether values of a class cross as values."""
    return (
        cls in (set, frozenset, complex, bytearray, CallableForm, Opaque, Revealed, RemoteObjectHandle)
        or issubclass(cls, (BaseException, Remote))
        or is_array_type(cls)
        or process_registry.for_type(cls) is not None
        or serializer_for(cls) is not None
        or cls.__module__ in ("torch", "numpy")
    )


def arrived(value: Any) -> Any:
    """The value that crossed, as this process has it."""
    registry = SerializerRegistry.get_instance()
    return _incoming(value, registry) if registry.can_deserialize or get_child_rpc_instance() is not None else value


def _incoming(value: Any, registry: SerializerRegistry) -> Any:
    cls = type(value)
    if cls is dict:
        items = {key: _incoming(item, registry) for key, item in value.items()}
        name = items.get("__type__")
        deserialize = registry.get_deserializer(name) if isinstance(name, str) else None
        return items if deserialize is None else deserialize(items)
    if cls is list:
        return [_incoming(item, registry) for item in value]
    if cls is tuple:
        return tuple([_incoming(item, registry) for item in value])
    if cls is Opaque and value.name in _OF_CLASSES and get_child_rpc_instance() is not None:
        return _of_host(value, registry)
    return value


def _of_host(value: Opaque, registry: SerializerRegistry) -> Any:
    """A value of a class of the host's, which says what runs here anyway, of a module that was not imported yet."""
    state = _incoming(value.state, registry)
    rebuild = rebuild_for(value.name)
    try:
        importlib.import_module(state[0])
    except ImportError:
        return value
    return value if rebuild is None else rebuild(state)


async def _call_remote(function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    converted = {name: going(item) for name, item in keywords.items()}
    return arrived(await function.acall(*[going(item) for item in args], **converted))


register_callables(_call_remote)

__all__ = ["CallableProxy", "arrived", "call_here", "going", "has_form"]
