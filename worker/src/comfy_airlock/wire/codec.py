"""Values to msgpack and back, with the extensions of PROTOCOL.md, "Values". The only file that imports msgpack.

Nothing is guessed: a value that has no form on the wire is refused, by the path to it. Twin of
``src/transport/codec.ts``; both read ``tests/vectors/values.json``.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Any, Final

import msgpack

from comfy_airlock.wire import arrays, exceptions, extensions, standard_types
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from comfy_airlock.wire.limits import VALUE_EXTENSIONS_DEEP_MAX
from comfy_airlock.wire.registry import Opaque, Registry, process_registry

_COMPLEX: Final = struct.Struct("<dd")

_STACK_LEVELS_MAX: Final = 4
"""How deep extensions are decoded on the C stack, of which msgpack takes 45 KB for each; deeper ones on the heap."""


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
            return self._pack(value, 0)
        except ValueUnsupported as error:
            raise self._located(value, error) from error
        except Exception as error:
            failure = ValueUnsupported(f"it cannot be encoded: {type(error).__name__}: {error}")
            raise self._located(value, failure) from error

    def decode(self, data: bytes | bytearray | memoryview) -> Any:
        """The value that the bytes are, built in the calling thread.

        Raises:
            ValueInvalid: they are not exactly one well-formed value, or one that cannot be held here.
        """
        try:
            return msgpack.unpackb(data, ext_hook=partial(self._restore, 1), strict_map_key=False)
        except ValueInvalid:
            raise
        except Exception as error:
            raise ValueInvalid(f"the bytes are no value: {type(error).__name__}: {error}") from error

    def crosses(self, value: Any) -> bool:
        """Whether the value can be encoded."""
        try:
            self._pack(value, 0)
        except Exception:  # noqa: BLE001 - as in encode.
            return False
        return True

    def _pack(self, value: Any, depth: int) -> bytes:
        packb: Any = msgpack.packb
        data: bytes = packb(value, default=partial(self._extend, depth + 1), strict_types=True)
        return data

    def _pack_items(self, code: int, items: list[Any], depth: int) -> msgpack.ExtType:
        if depth > VALUE_EXTENSIONS_DEEP_MAX:
            raise ValueUnsupported("it is nested too deep, or contains itself")
        return msgpack.ExtType(code, self._pack(items, depth))

    def _extend(self, depth: int, value: Any) -> Any:
        cls: type = type(value)
        if cls is tuple:
            return self._pack_items(extensions.TUPLE, list(value), depth)
        if cls is set:
            return self._pack_items(extensions.SET, list(value), depth)
        if cls is frozenset:
            return self._pack_items(extensions.FROZENSET, list(value), depth)
        if cls is int:
            length = (value if value >= 0 else ~value).bit_length() // 8 + 1
            return msgpack.ExtType(extensions.BIGINT, value.to_bytes(length, "big", signed=True))
        if cls is complex:
            return msgpack.ExtType(extensions.COMPLEX, _COMPLEX.pack(value.real, value.imag))
        if cls is arrays.AsTensor:
            parts = arrays.take_apart(value.value)
            if parts is None:
                raise ValueUnsupported(f"it is marked as a tensor, and is a {type(value.value).__qualname__}")
            return self._pack_array(parts._replace(kind="tensor"), depth)
        parts = arrays.take_apart(value)
        if parts is not None:
            return self._pack_array(parts, depth)
        return self._pack_items(extensions.NAMED, self._name_and_state(value, cls), depth)

    def _pack_array(self, parts: arrays.Parts, depth: int) -> msgpack.ExtType:
        return self._pack_items(extensions.ARRAY, list(parts), depth)

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

    def _restore(self, depth: int, code: int, payload: bytes) -> Any:
        if code == extensions.TUPLE:
            return tuple(self._items(payload, depth))
        if code == extensions.NAMED:
            return self._restore_named(*self._items(payload, depth))
        if code == extensions.ARRAY:
            return arrays.rebuild(self._items(payload, depth))
        if code == extensions.SET:
            return set(self._items(payload, depth))
        if code == extensions.FROZENSET:
            return frozenset(self._items(payload, depth))
        if code == extensions.COMPLEX:
            return complex(*_COMPLEX.unpack(payload))
        if code == extensions.BIGINT:
            return int.from_bytes(payload, "big", signed=True)
        raise ValueInvalid(f"unknown extension {code}")

    def _items(self, payload: bytes, depth: int) -> list[Any]:
        if depth > VALUE_EXTENSIONS_DEEP_MAX:
            raise ValueInvalid("the value is nested too deep")
        restore = partial(self._restore, depth + 1)
        if depth <= _STACK_LEVELS_MAX:
            items = msgpack.unpackb(payload, ext_hook=restore, strict_map_key=False)
        else:
            unpacker = msgpack.Unpacker(
                ext_hook=restore, strict_map_key=False, max_buffer_size=max(1, len(payload)), read_size=1
            )
            unpacker.feed(payload)
            items = unpacker.unpack()
            if unpacker.tell() != len(payload):
                raise ValueInvalid("an extension has trailing bytes")
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
        if type(value) is dict:
            children = [(f"{path}[{key!r}]", item) for key, item in value.items()]
        elif type(value) in (list, tuple):
            children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        if depth < 64:
            for child_path, child in children:
                if not self.crosses(child):
                    return self._path_to_fault(child, child_path, depth + 1)
        return path
