"""Values to msgpack and back, with the extensions of PROTOCOL.md, "Values". The only file that imports msgpack.

Nothing is guessed: a value that has no form on the wire is refused, by the path to it. Twin of
``src/transport/codec.ts``; both read ``tests/vectors/values.json``.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

from comfy_airlock.wire import arrays, exceptions, extensions, standard_types
from comfy_airlock.wire.errors import AirlockError, ValueInvalid, ValueUnsupported
from comfy_airlock.wire.registry import Opaque, Registry, process_registry

_COMPLEX: Final = struct.Struct("<dd")
_MALFORMED: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, msgpack.UnpackException)


class Codec:
    """Encodes and decodes with one registry. Holds no state between calls, so threads may share it."""

    def __init__(self, registry: Registry = process_registry) -> None:
        self._registry = registry

    def encode(self, value: Any) -> bytes:
        """One value as bytes.

        Raises:
            ValueUnsupported: a part of it cannot cross; says which.
        """
        try:
            data: bytes = msgpack.packb(value, default=self._extend, strict_types=True)
        except ValueUnsupported as error:
            raise self._located(value, error) from error
        except (UnicodeEncodeError, ValueError, RecursionError, OverflowError) as error:
            raise ValueUnsupported(f"the value cannot be encoded: {error}") from error
        return data

    def decode(self, data: bytes | bytearray | memoryview) -> Any:
        """The value that the bytes are, built in the calling thread.

        Raises:
            ValueInvalid: they are not exactly one well-formed value, or one that cannot be held here.
        """
        try:
            return msgpack.unpackb(data, ext_hook=self._restore, strict_map_key=False)
        except AirlockError:
            raise
        except _MALFORMED as error:
            raise ValueInvalid(f"the bytes are no value: {type(error).__name__}: {error}") from error

    def crosses(self, value: Any) -> bool:
        """Whether the value can be encoded."""
        try:
            self.encode(value)
        except ValueUnsupported:
            return False
        return True

    def _pack(self, value: Any) -> bytes:
        data: bytes = msgpack.packb(value, default=self._extend, strict_types=True)
        return data

    def _extend(self, value: Any) -> Any:
        cls: type = type(value)
        if cls is tuple:
            return msgpack.ExtType(extensions.TUPLE, self._pack(list(value)))
        if cls is set:
            return msgpack.ExtType(extensions.SET, self._pack(list(value)))
        if cls is frozenset:
            return msgpack.ExtType(extensions.FROZENSET, self._pack(list(value)))
        if cls is int:
            length = value.bit_length() // 8 + 1
            return msgpack.ExtType(extensions.BIGINT, value.to_bytes(length, "big", signed=True))
        if cls is complex:
            return msgpack.ExtType(extensions.COMPLEX, _COMPLEX.pack(value.real, value.imag))
        return self._extend_array(value) or self._extend_named(value, cls)

    def _extend_array(self, value: Any) -> Any:
        if type(value) is arrays.AsTensor:
            parts = arrays.take_apart(value.value)
            if parts is None:
                return value.value
            return msgpack.ExtType(extensions.ARRAY, self._pack(list(parts._replace(kind="tensor"))))
        parts = arrays.take_apart(value)
        return None if parts is None else msgpack.ExtType(extensions.ARRAY, self._pack(list(parts)))

    def _extend_named(self, value: Any, cls: type) -> Any:
        return msgpack.ExtType(extensions.NAMED, self._pack(self._name_and_state(value, cls)))

    def _name_and_state(self, value: Any, cls: type) -> list[Any]:
        if cls is Opaque:
            return [value.name, value.state]
        serializer = self._registry.for_type(cls) or standard_types.serializer_for(cls)
        if serializer is not None:
            return [serializer.name, serializer.take_apart(value)]
        named = arrays.named_state(value)
        if named is not None:
            return list(named)
        if isinstance(value, BaseException):
            return ["exception", exceptions.take_apart(value, self.crosses)]
        raise ValueUnsupported(
            f"{cls.__module__}.{cls.__qualname__} has no form on the wire",
            hint="register it on both sides with comfy_airlock.register, or send what it is made of",
        )

    def _restore(self, code: int, payload: bytes) -> Any:
        if code == extensions.TUPLE:
            return tuple(self._items(payload))
        if code == extensions.NAMED:
            return self._restore_named(*self._items(payload))
        if code == extensions.ARRAY:
            return arrays.rebuild(self._items(payload))
        if code == extensions.SET:
            return set(self._items(payload))
        if code == extensions.FROZENSET:
            return frozenset(self._items(payload))
        if code == extensions.COMPLEX:
            return complex(*_COMPLEX.unpack(payload))
        if code == extensions.BIGINT:
            return int.from_bytes(payload, "big", signed=True)
        raise ValueInvalid(f"unknown extension {code}")

    def _items(self, payload: bytes) -> list[Any]:
        items = msgpack.unpackb(payload, ext_hook=self._restore, strict_map_key=False)
        if not isinstance(items, list):
            raise ValueInvalid("an extension's payload is not an array")
        return items

    def _restore_named(self, name: Any, state: Any) -> Any:
        if not isinstance(name, str):
            raise ValueInvalid("a named value's name is not a string")
        rebuild = self._registry.for_name(name) or standard_types.rebuild_for(name)
        if rebuild is not None:
            return rebuild(state)
        if name == "exception":
            return exceptions.rebuild(state)
        value = arrays.rebuild_named(name, state)
        return Opaque(name, state) if value is None else value

    def _located(self, value: Any, error: ValueUnsupported) -> ValueUnsupported:
        path = self._path_to_fault(value, "value", 0)
        return ValueUnsupported(f"{path}: {error.message}", hint=error.hint)

    def _path_to_fault(self, value: Any, path: str, depth: int) -> str:
        """Where in ``value`` the part lies that cannot cross. Slow, and only walked once something failed."""
        children: list[tuple[str, Any]] = []
        if isinstance(value, dict):
            children = [(f"{path}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        if depth < 64:
            for child_path, child in children:
                if not self.crosses(child):
                    return self._path_to_fault(child, child_path, depth + 1)
        return path
