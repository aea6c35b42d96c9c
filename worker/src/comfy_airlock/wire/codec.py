"""Values to msgpack and back, with the extensions of PROTOCOL.md, "Values". The only file that imports msgpack.

Nothing is guessed: a value that has no form on the wire is refused, by the path to it. Twin of
``src/transport/codec.ts``; both read ``tests/vectors/values.json``.
"""

from __future__ import annotations

import struct
from functools import partial
from threading import get_ident
from typing import Any, Final

import msgpack
from msgpack import unpackb

from comfy_airlock.wire import arrays, exceptions, extensions, standard_types
from comfy_airlock.wire.array_table import ArrayRun, ArrayTable, ManyArrays, array_at
from comfy_airlock.wire.errors import AirlockError, ReferenceGone, ValueInvalid, ValueUnsupported
from comfy_airlock.wire.extensions import EXTENSION_FIRST, FIXED_TOTALS, extension_head
from comfy_airlock.wire.faults import path_to_fault
from comfy_airlock.wire.laden import LadenBody
from comfy_airlock.wire.limits import EXCEPTIONS_DEEP_MAX, VALUE_EXTENSIONS_DEEP_MAX
from comfy_airlock.wire.reference import ReferenceTable, read_reference
from comfy_airlock.wire.registry import Opaque, Registry, process_registry

Exceptions = tuple[BaseException, ...]

_COMPLEX: Final = struct.Struct("<dd")
_PACKERS_IDLE_MAX: Final = 8
#: What a packer begins with. Its own default, a MiB, costs 20 µs of page faults for each tuple within another value.
_PACK_BYTES: Final = 4096

_LARGE_BYTES: Final = 256 * 1024
"""Bytes of a message from which on it is looked at for bytes that had better travel as arrays do."""

_PAIR_HEAD: Final = b"\x92"
"""How a list of two begins."""

_PLACE_BYTES_MAX: Final = 11
_PARTS_HEAD: Final = b"\x95"
"""How the parts of an array begin: a list of five."""

_STACK_LEVELS_MAX: Final = 4
"""How deep extensions are decoded on the C stack, of which msgpack takes 45 KB for each; deeper ones on the heap."""


class Codec:
    """Encodes and decodes with one registry. Threads may share it: what is used by one is not seen by another."""

    def __init__(
        self,
        registry: Registry = process_registry,
        references: ReferenceTable | None = None,
        arrays: ArrayTable | None = None,
    ) -> None:
        """
        Args:
            references: for objects without a form of their own; without it, those are refused.
            arrays: for messages that have a table of their arrays; without it, each array stands where it is.
        """
        self._registry = registry
        self._references = references
        self._arrays = arrays
        self._noted: object = () if arrays is None else arrays.noted
        self._array_types: set[type] = set()
        self._places: list[Any] = []
        # The arrays of the message that a thread decodes.
        self._decoded: dict[int, list[Any]] = {}
        self._restore_outermost = partial(self._restore, 1)
        self._restore_second = partial(self._restore, 2)
        # By depth; whoever needs one takes it out. Those of values within exceptions are made anew.
        self._packers: list[list[Any]] = [[] for _ in range(VALUE_EXTENSIONS_DEEP_MAX + 1)]

    def encode(self, value: Any) -> bytes:
        """One value as bytes.

        Raises:
            ValueUnsupported: a part of it cannot cross; says which.
            ReferenceGone: a part of it stands for an object that is gone.
        """
        try:
            # What a V1 node returns: written without the detour by which msgpack asks for other tuples' extensions.
            depth = 1 if type(value) is tuple else 0
            # What _pack does, without the call.
            idle = self._packers[depth]
            try:
                packer = idle.pop()
            except IndexError:
                packer = self._new_packer(depth, ())
            data: bytes = packer.pack([*value] if depth else value)
            length = len(data)
            if length <= _PACK_BYTES:
                idle.append(packer)
            if depth:
                head = _TUPLE_HEADS[length] if length < _TUPLE_HEADS_MAX else extension_head(extensions.TUPLE, length)
                data = head + data
            if (self._noted or length > _LARGE_BYTES) and self._arrays is not None:
                return self._with_arrays(self._arrays, value, data)
            return data
        except ManyArrays:
            return self._encode_many(value)
        except Exception as error:
            raise self._failed(value, error) from error

    def _encode_many(self, value: Any) -> bytes:
        assert self._arrays is not None
        self._revert()
        try:
            rewritten = self._arrays.rewrite(value)
            return self._encode_rewritten(self._arrays, rewritten, self._arrays.take())
        except Exception as error:
            raise self._failed(value, error) from error

    def _with_arrays(self, arrays: ArrayTable, value: Any, data: bytes) -> bytes:
        """An encoded value behind the table of its arrays, if it has any."""
        noted = arrays.take()
        if len(data) > _LARGE_BYTES:
            rewritten = arrays.rewrite(value)
            if rewritten is not value:
                runs = arrays.take()
                self._revert()
                return self._encode_rewritten(arrays, rewritten, runs)
        return self._behind_table(arrays, noted, data)

    def _encode_rewritten(self, arrays: ArrayTable, rewritten: Any, noted: list[Any] | None) -> bytes:
        """Encodes what :meth:`ArrayTable.rewrite` gave, which has noted some arrays by then."""
        arrays.allow_many(noted)
        data = self._pack(rewritten, 0)
        return self._behind_table(arrays, arrays.take(), data)

    def _behind_table(self, arrays: ArrayTable, noted: list[Any] | None, data: bytes) -> bytes:
        if not noted:
            return data
        return b"".join((_PAIR_HEAD, self._pack(arrays.to_entries(noted), 0), data))

    def _revert(self) -> None:
        if self._references is not None:
            self._references.revert(self._references.settle())
        if self._arrays is not None:
            self._arrays.revert()

    def _failed(self, value: Any, error: Exception) -> AirlockError:
        """What a value that could not be encoded fails with."""
        self._revert()
        # What there is to be done about it has nothing to do with where in the value it is.
        if isinstance(error, AirlockError) and not isinstance(error, ValueUnsupported):
            return error
        if isinstance(error, ValueUnsupported):
            return self._located(value, error)
        return self._located(value, ValueUnsupported(f"it cannot be encoded: {type(error).__name__}: {error}"))

    def encode_error(self, fields: dict[str, Any], error: BaseException) -> bytes:
        """The body of an ERROR frame: ``fields``, and under ``exception`` what of ``error`` can cross."""
        packed = {self._pack(name, 0): self._pack(item, 0) for name, item in fields.items()}
        packed[self._pack("exception", 0)] = self._pack_exception(error, 0, ())
        return _joined_map(packed)

    def decode(self, data: bytes | bytearray | memoryview) -> Any:
        """The value that the bytes are, built in the calling thread.

        Raises:
            ValueInvalid: they are not exactly one well-formed value, or one that cannot be held here.
        """
        if type(data) is LadenBody and data.has_arrays:
            return self._decode_with_arrays(data)
        try:
            # What a V1 node returns, if it is short: read without the detour by which msgpack hands out extensions.
            first = data[0]
            if first >= EXTENSION_FIRST:
                at = 0
                if FIXED_TOTALS.get(first) == len(data):
                    at = 2
                elif first == EXTENSION_FIRST and data[1] + 3 == len(data):
                    at = 3
                if at and data[at - 1] == extensions.TUPLE:
                    items = unpackb(data[at:], ext_hook=self._restore_second, strict_map_key=False)
                    if type(items) is list:
                        return tuple(items)
            return unpackb(data, ext_hook=self._restore_outermost, strict_map_key=False)
        except (ValueInvalid, ReferenceGone):
            raise
        except Exception as error:
            raise ValueInvalid(f"the bytes are no value: {type(error).__name__}: {error}") from error

    def _decode_with_arrays(self, data: LadenBody) -> Any:
        thread = get_ident()
        outer = self._decoded.get(thread)
        unpacker = msgpack.Unpacker(ext_hook=self._restore_outermost, strict_map_key=False, max_buffer_size=len(data))
        try:
            unpacker.feed(data)
            self._decoded[thread] = self._arrays_of(unpacker, data)
            return _only_value(unpacker, len(data))
        except AirlockError:
            raise
        except Exception as error:
            raise ValueInvalid(f"the bytes are no value: {type(error).__name__}: {error}") from error
        finally:
            if outer is None:
                self._decoded.pop(thread, None)
            else:
                self._decoded[thread] = outer

    def _arrays_of(self, unpacker: Any, data: LadenBody) -> list[Any]:
        """The arrays of a message that begins with their table."""
        if self._arrays is None:
            raise ValueInvalid("a table of arrays came where none has a meaning")
        if unpacker.read_array_header() != 2:
            raise ValueInvalid("a table of arrays and its value were announced, and something else came")
        return self._arrays.from_entries(unpacker.unpack(), data)

    def crosses(self, value: Any) -> bool:
        """Whether the value can be encoded."""
        if self._arrays is not None:
            self._arrays.allow_many()
        try:
            self._pack(value, 0)
            if self._arrays is not None:
                for array in self._arrays.take() or ():
                    self._arrays.check(array)
        except Exception:  # noqa: BLE001 - as in encode.
            return False
        finally:
            self._revert()
        return True

    def _pack(self, value: Any, depth: int, within: Exceptions = ()) -> bytes:
        """
        Args:
            depth: how many extensions the value lies in.
            within: the exceptions that it lies in.
        """
        if within:
            packed: bytes = self._new_packer(depth, within).pack(value)
            return packed
        idle = self._packers[depth]
        try:
            packer = idle.pop()
        except IndexError:
            packer = self._new_packer(depth, ())
        # One that fails is not used again: what it has begun stays in it.
        data: bytes = packer.pack(value)
        if len(data) <= _PACK_BYTES and len(idle) < _PACKERS_IDLE_MAX:
            idle.append(packer)
        return data

    def _new_packer(self, depth: int, within: Exceptions) -> Any:
        return msgpack.Packer(default=partial(self._extend, depth + 1, within), strict_types=True, buf_size=_PACK_BYTES)

    def _pack_items(self, code: int, items: list[Any], depth: int, within: Exceptions) -> msgpack.ExtType:
        _check_depth(depth)
        return msgpack.ExtType(code, self._pack(items, depth, within))

    def _extend(self, depth: int, within: Exceptions, value: Any) -> Any:
        cls: type = type(value)
        if cls in self._array_types and self._arrays is not None and not within:
            # First, as there may be many.
            return self._place(self._arrays.note(value))
        if cls is tuple:
            return self._pack_items(extensions.TUPLE, list(value), depth, within)
        if cls is set:
            return self._pack_items(extensions.SET, list(value), depth, within)
        if cls is frozenset:
            return self._pack_items(extensions.FROZENSET, list(value), depth, within)
        if cls is int:
            length = (value if value >= 0 else ~value).bit_length() // 8 + 1
            return msgpack.ExtType(extensions.BIGINT, value.to_bytes(length, "big", signed=True))
        if cls is complex:
            return msgpack.ExtType(extensions.COMPLEX, _COMPLEX.pack(value.real, value.imag))
        if arrays.is_array_type(cls):
            if self._arrays is not None and not within:
                self._array_types.add(cls)
                return self._place(self._arrays.note(value))
            return self._extend_array(value, cls, depth, within)
        if cls is ArrayRun:
            return msgpack.ExtType(extensions.ARRAY, msgpack.packb([value.first, value.count]))
        return self._extend_named(value, cls, depth, within)

    def _place(self, index: int) -> Any:
        """What stands for an array of the message's table."""
        if index >= len(self._places):
            # Put in place whole: other threads may be here, too.
            count = 2 * index + 16
            self._places = [msgpack.ExtType(extensions.ARRAY, msgpack.packb(each)) for each in range(count)]
        return self._places[index]

    def _extend_array(self, value: Any, cls: type, depth: int, within: Exceptions) -> Any:
        if cls is arrays.AsTensor:
            parts = arrays.take_apart(value.value)
            if parts is None:
                raise ValueUnsupported(f"it is marked as a tensor, and is a {type(value.value).__qualname__}")
            return self._pack_items(extensions.ARRAY, list(parts._replace(kind="tensor")), depth, within)
        return self._pack_items(extensions.ARRAY, list(arrays.take_apart(value) or ()), depth, within)

    def _extend_named(self, value: Any, cls: type, depth: int, within: Exceptions) -> Any:
        named = self._name_and_state(value, cls)
        if named is not None:
            return self._pack_items(extensions.NAMED, list(named), depth, within)
        if not isinstance(value, BaseException):
            reference = None if within or self._references is None else self._references.describe(value)
            if reference is not None:
                return self._pack_items(extensions.REFERENCE, reference.items(), depth, within)
            raise ValueUnsupported(
                f"{cls.__module__}.{cls.__qualname__} has no form on the wire",
                hint="register it on both sides with comfy_airlock.register, or send what it is made of",
            )
        if len(within) >= EXCEPTIONS_DEEP_MAX or any(each is value for each in within):
            return exceptions.summary_of(value)
        _check_depth(depth)
        state = self._pack_exception(value, depth, within)
        return msgpack.ExtType(extensions.NAMED, _joined_list([self._pack("exception", depth), state]))

    def _name_and_state(self, value: Any, cls: type) -> tuple[str, Any] | None:
        if cls is Opaque:
            return value.name, value.state
        serializer = self._registry.for_type(cls) or standard_types.serializer_for(cls)
        if serializer is not None:
            return serializer.name, serializer.take_apart(value)
        return arrays.named_state(value)

    def _pack_exception(self, error: BaseException, depth: int, within: Exceptions) -> bytes:
        """The map that an exception crosses as, put together from parts that are encoded once each."""
        parts = exceptions.take_apart(error, partial(self._pack, depth=depth, within=(*within, error)))
        fields = {
            "types": self._pack(parts.types, depth),
            "message": self._pack(parts.message, depth),
            "traceback": self._pack(parts.traceback, depth),
            "args": _joined_list(parts.args),
            "state": _joined_map(parts.state),
        }
        return _joined_map({self._pack(name, depth): packed for name, packed in fields.items()})

    def _restore(self, depth: int, code: int, payload: bytes) -> Any:
        if code == extensions.TUPLE:
            if depth == 1:
                # What _items does, where most tuples are.
                items = unpackb(payload, ext_hook=self._restore_second, strict_map_key=False)
                if type(items) is list:
                    return tuple(items)
            return tuple(self._items(payload, depth))
        if code == extensions.NAMED:
            return self._restore_named(*self._items(payload, depth))
        if code == extensions.ARRAY:
            return self._restore_array(depth, payload)
        if code == extensions.REFERENCE and self._references is not None:
            return self._references.restore(read_reference(self._items(payload, depth)))
        if code == extensions.SET:
            return set(self._items(payload, depth))
        if code == extensions.FROZENSET:
            return frozenset(self._items(payload, depth))
        if code == extensions.COMPLEX:
            return complex(*_COMPLEX.unpack(payload))
        if code == extensions.BIGINT:
            if not payload:
                raise ValueInvalid("an int has no bytes")
            return int.from_bytes(payload, "big", signed=True)
        raise ValueInvalid(f"unknown extension {code}")

    def _restore_array(self, depth: int, payload: bytes) -> Any:
        # A place, or a first one and a count, take so few bytes; the parts of an array begin with a text.
        if len(payload) > _PLACE_BYTES_MAX or payload[:1] == _PARTS_HEAD:
            return arrays.rebuild(self._items(payload, depth))
        return array_at(self._decoded.get(get_ident(), []), unpackb(payload))

    def _items(self, payload: bytes, depth: int) -> list[Any]:
        if depth > VALUE_EXTENSIONS_DEEP_MAX:
            raise ValueInvalid("the value is nested too deep")
        restore = partial(self._restore, depth + 1)
        if depth <= _STACK_LEVELS_MAX:
            items = unpackb(payload, ext_hook=restore, strict_map_key=False)
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
        return ValueUnsupported(f"{path_to_fault(value, self.crosses)}: {error.message}", hint=error.hint)


def _only_value(unpacker: Any, length: int) -> Any:
    """The value that ends where the bytes do."""
    value = unpacker.unpack()
    if unpacker.tell() != length:
        raise ValueInvalid("bytes follow the value")
    return value


_TUPLE_HEADS_MAX: Final = 256
_TUPLE_HEADS: Final = [extension_head(extensions.TUPLE, length) for length in range(_TUPLE_HEADS_MAX)]


def _check_depth(depth: int) -> None:
    if depth > VALUE_EXTENSIONS_DEEP_MAX:
        raise ValueUnsupported("it is nested too deep, or contains itself")


def _joined_list(packed: list[bytes]) -> bytes:
    """A list of items that are encoded already."""
    head: bytes = msgpack.Packer(buf_size=_PACK_BYTES).pack_array_header(len(packed))
    return head + b"".join(packed)


def _joined_map(packed: dict[bytes, bytes]) -> bytes:
    """A map of keys and items that are encoded already."""
    head: bytes = msgpack.Packer(buf_size=_PACK_BYTES).pack_map_header(len(packed))
    return head + b"".join(key + item for key, item in packed.items())
