"""Makes arrays of a message's table, where they lie: in the blocks that the message names, mapped privately, or in the
message itself.

What came from another process is checked before it is used: every element of every array lies inside its block.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final, NamedTuple

from comfy_airlock.memory.sources import strides_in_order
from comfy_airlock.wire.arrays import numpy_dtype, torch_dtype
from comfy_airlock.wire.errors import ValueInvalid
from comfy_airlock.wire.limits import ARRAY_AXES_MAX, ARRAYS_MAX
from comfy_airlock.wire.optional import installed, loaded

_LENGTH_MAX: Final = 2**63 - 1
_KINDS: Final = ("tensor", "ndarray", "bytes")


class _Entry(NamedTuple):
    kind: str
    dtype: Any
    shape: Any
    order: Any
    data: Any
    arrays: int = 1


def unpack(entries: Any, map_blocks: Callable[[], list[Any]]) -> list[Any]:
    """The arrays that a table stands for, each writable.

    Args:
        map_blocks: gives the blocks that the message names, as writable buffers.

    Raises:
        ValueInvalid: the table makes no sense, or what is needed to hold an array is not installed.
    """
    if not isinstance(entries, list):
        raise ValueInvalid("a table of arrays is a list")
    arrays: list[Any] = []
    buffers: list[Any] | None = None
    for each in entries:
        entry = _checked(each)
        if len(arrays) + entry.arrays > ARRAYS_MAX:
            raise ValueInvalid(f"a message of more than {ARRAYS_MAX} arrays came")
        if isinstance(entry.data, list):
            if buffers is None:
                buffers = map_blocks()
            arrays += _in_block(entry, buffers)
        else:
            arrays += _inline(entry)
    return arrays


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LENGTH_MAX


def _checked(parts: Any) -> _Entry:
    if not isinstance(parts, list) or len(parts) not in (5, 6):
        raise ValueInvalid("an array needs kind, dtype, shape, order and data")
    entry = _Entry(*parts)
    shape, order = entry.shape, entry.order
    is_well_formed = (
        entry.kind in _KINDS
        and isinstance(shape, list)
        and len(shape) <= ARRAY_AXES_MAX
        and all(map(_is_length, shape))
        and (order in ("C", "F") or (isinstance(order, list) and sorted(order) == list(range(len(shape)))))
        and type(entry.arrays) is int
        and 0 < entry.arrays <= ARRAYS_MAX
    )
    if not is_well_formed:
        raise ValueInvalid("an array's kind, shape, order or count is malformed")
    if entry.kind == "bytes" and (entry.dtype is not None or len(shape) != 1 or entry.arrays != 1):
        raise ValueInvalid("bytes have one length, and no element type")
    return entry


def _inline(entry: _Entry) -> list[Any]:
    if not isinstance(entry.data, bytes):
        raise ValueInvalid("an array's data is neither bytes nor a place in a block")
    if entry.kind == "bytes":
        return [entry.data]
    build = _builder_of(entry)
    size = _size(entry, build.item_bytes)
    if size * entry.arrays != len(entry.data):
        needed = f"{entry.arrays} of shape {entry.shape} need {size * entry.arrays} bytes"
        raise ValueInvalid(f"{needed}, and {len(entry.data)} arrived")
    # Received bytes are immutable, and what a node gets it may write to.
    buffer = bytearray(entry.data)
    return build.dense(buffer, 0, size, entry)


def _in_block(entry: _Entry, buffers: list[Any]) -> list[Any]:
    index, offset, strides = _place(entry)
    if index >= len(buffers):
        raise ValueInvalid(f"block {index} is named, and the message brings {len(buffers)}")
    buffer = buffers[index]
    if entry.kind == "bytes":
        (size,) = entry.shape
        _check_inside(offset, offset + size, len(buffer))
        return [bytes(memoryview(buffer)[offset : offset + size])]
    build = _builder_of(entry)
    size = _size(entry, build.item_bytes)
    if strides is None or not size:
        _check_inside(offset, offset + size * entry.arrays, len(buffer))
        return build.dense(buffer, offset, size, entry)
    reach = [(length - 1) * stride for length, stride in zip(entry.shape, strides, strict=True)]
    low = offset + sum(each for each in reach if each < 0)
    high = offset + sum(each for each in reach if each > 0) + build.item_bytes
    _check_inside(low, high, len(buffer))
    return [build.strided(buffer, offset, range(low, high), strides, entry)]


def _place(entry: _Entry) -> tuple[int, int, list[int] | None]:
    if len(entry.data) == 3:
        index, offset, strides = entry.data
        if type(index) is int and index >= 0 and type(offset) is int and offset >= 0:
            if strides is None:
                return index, offset, None
            are_strides = isinstance(strides, list) and len(strides) == len(entry.shape) and entry.arrays == 1
            if are_strides and all(type(each) is int and abs(each) <= _LENGTH_MAX for each in strides):
                return index, offset, strides
    raise ValueInvalid("an array's place in a block is malformed")


def _check_inside(low: int, high: int, size: int) -> None:
    if low < 0 or high > size:
        raise ValueInvalid(f"an array covers bytes {low} to {high} of a block of {size}")


def _size(entry: _Entry, item_bytes: int) -> int:
    return prod(entry.shape) * item_bytes


def _builder_of(entry: _Entry) -> _Tensors | _Ndarrays:
    if entry.kind == "tensor":
        torch = loaded("torch") or installed("torch")
        if torch is not None:
            return _Tensors(torch, entry.dtype)
    return _Ndarrays(entry.dtype)


class _Ndarrays:
    """Makes numpy arrays."""

    def __init__(self, description: Any) -> None:
        self._dtype = numpy_dtype(description)
        self._new: Any = getattr(loaded("numpy"), "ndarray", None)
        self.item_bytes: int = self._dtype.itemsize

    def dense(self, buffer: Any, offset: int, size: int, entry: _Entry) -> list[Any]:
        shape, order = entry.shape, entry.order
        if not size:
            empty: Any = getattr(loaded("numpy"), "empty", None)
            return [empty(shape, self._dtype) for _ in range(entry.arrays)]
        strides = None if order == "C" else strides_in_order(shape, order, self.item_bytes)
        places = range(offset, offset + size * entry.arrays, size)
        return [self._new(shape, self._dtype, buffer, each, strides) for each in places]

    def strided(self, buffer: Any, offset: int, _covers: range, strides: list[int], entry: _Entry) -> Any:
        return self._new(entry.shape, self._dtype, buffer, offset, strides)


class _Tensors:
    """Makes torch tensors."""

    def __init__(self, torch: Any, name: Any) -> None:
        self._torch = torch
        self._name = name
        self._dtype = torch_dtype(torch, name)
        self.item_bytes: int = self._dtype.itemsize

    def dense(self, buffer: Any, offset: int, size: int, entry: _Entry) -> list[Any]:
        shape, order = entry.shape, entry.order
        if not size:
            return [self._torch.empty(shape, dtype=self._dtype) for _ in range(entry.arrays)]
        if offset % self.item_bytes:
            buffer, offset = bytearray(memoryview(buffer)[offset : offset + size * entry.arrays]), 0
        frombuffer, dtype, items = self._torch.frombuffer, self._dtype, size // self.item_bytes
        places = range(offset, offset + size * entry.arrays, size)
        flat = [frombuffer(buffer, dtype=dtype, count=items, offset=each) for each in places]
        if order == "C":
            return flat if len(shape) == 1 else [each.view(shape) for each in flat]
        strides = [each // self.item_bytes for each in strides_in_order(shape, order, self.item_bytes)]
        return [each.as_strided(shape, strides) for each in flat]

    def strided(self, buffer: Any, offset: int, covers: range, strides: list[int], entry: _Entry) -> Any:
        low, item_bytes = covers.start, self.item_bytes
        if low % item_bytes or any(each % item_bytes or each < 0 for each in strides):
            # torch can't see these where they lie: it gets a copy, which is to be no larger than what there is.
            size = prod(entry.shape) * item_bytes
            if size > len(buffer):
                raise ValueInvalid(
                    f"an array of {size} bytes names elements of a block of {len(buffer)} again and again"
                )
            numpy: Any = installed("numpy")
            if numpy is None:
                raise ValueInvalid("a tensor with strides that torch does not know needs numpy, which is not installed")
            elements = numpy.ndarray([*entry.shape, item_bytes], numpy.uint8, buffer, offset, [*strides, 1])
            copy = bytearray(elements.tobytes())
            return self._torch.frombuffer(copy, dtype=self._dtype).view(entry.shape)
        items = len(covers) // item_bytes
        flat = self._torch.frombuffer(buffer, dtype=self._dtype, count=items, offset=low)
        return flat.as_strided(entry.shape, [each // item_bytes for each in strides], (offset - low) // item_bytes)
