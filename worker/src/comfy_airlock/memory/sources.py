"""Arrays that are to be sent: what each is, and where its bytes lie in this process.

Reads arrays and copies out of them; changes none, and imports neither numpy nor torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from comfy_airlock.memory import copying, libc
from comfy_airlock.wire.arrays import AsTensor, LargeBytes, check_ndarray, check_tensor
from comfy_airlock.wire.errors import ValueUnsupported
from comfy_airlock.wire.optional import loaded


class Source:
    """One array.

    Attributes:
        kind, dtype, shape: as the table of a message has them.
        order: how its elements lie, as the table has it; None where there are gaps between them.
        size: bytes of its elements.
        first: address of the element with all indexes 0.
        low, high: the addresses that it covers; both 0 where nobody else sees this memory.
        strides: bytes from one index to the next, by axis.
        item_bytes: of an element.
    """

    #: Bytes that it keeps from the next multiple of the alignment: none.
    lead: ClassVar = 0

    __slots__ = ("dtype", "first", "high", "item_bytes", "kind", "low", "order", "shape", "size", "strides", "value")

    kind: str
    dtype: Any
    shape: list[int]
    order: Any
    size: int
    first: int
    low: int
    high: int
    strides: tuple[int, ...]
    item_bytes: int
    value: Any

    @property
    def is_pinned(self) -> bool:
        """Whether a device may read this memory by where its pages lie."""
        ask: Callable[[], bool] | None = getattr(self.value, "is_pinned", None)
        return ask is not None and ask()

    def copy_to(self, address: int, keeps: object) -> None:
        """Copies its elements, one after the other in its order, or in C order where it has none.

        Args:
            keeps: what lies at this address does as long as this lives.
        """
        if not self.size:
            return
        if self.kind == "bytes":
            target = memoryview(libc.buffer_at(address, self.size)).cast("B")
            target[:] = self.value
        elif self.order is not None:
            copying.copy(address, self.first, self.size, (keeps, self.value))
        elif hasattr(self.value, "copy_"):
            torch: Any = loaded("torch")
            target = torch.frombuffer(libc.buffer_at(address, self.size), dtype=self.value.dtype)
            target.view(self.value.shape).copy_(self.value)
        else:
            numpy: Any = loaded("numpy")
            target = numpy.frombuffer(libc.buffer_at(address, self.size), self.value.dtype)
            numpy.copyto(target.reshape(self.value.shape), self.value)

    def data(self) -> bytes | bytearray:
        """Its elements, as :meth:`copy_to` copies them."""
        if self.order is not None and self.first:
            return libc.bytes_at(self.first, self.size)
        target = bytearray(self.size)
        if self.size:
            self.copy_to(libc.address_of(target), target)
        return target


def source_of(value: Any) -> Source:
    """What an array is.

    Raises:
        ValueUnsupported: it can't cross.
    """
    if type(value) is LargeBytes:
        return _of_bytes(value)
    kind = None
    if type(value) is AsTensor:
        kind, value = "tensor", value.value
    torch, numpy = loaded("torch"), loaded("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_tensor(torch, value)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _of_ndarray(numpy, value, kind or "ndarray")
    raise ValueUnsupported(f"it is marked as a tensor, and is a {type(value).__qualname__}")


def _of_bytes(marked: LargeBytes) -> Source:
    view = memoryview(marked.value)
    source = Source()
    source.kind, source.dtype, source.order = "bytes", None, "C"
    source.value = view.cast("B") if view.c_contiguous else view.tobytes()
    source.size = view.nbytes
    source.shape, source.strides, source.item_bytes = [source.size], (1,), 1
    source.first = source.low = source.high = 0
    return source


def _of_tensor(torch: Any, tensor: Any) -> Source:
    source = Source()
    source.kind, source.dtype = "tensor", check_tensor(torch, tensor)
    plain = tensor.detach() if tensor.requires_grad else tensor
    is_lazy = not plain.is_cpu or plain.is_neg() or (plain.is_complex() and plain.is_conj())
    if is_lazy:
        # What crosses is the value: no device, no lazy conjugate.
        plain = plain.cpu().resolve_conj().resolve_neg()
    source.value = plain
    source.shape = list(plain.shape)
    source.item_bytes = plain.element_size()
    source.size = plain.numel() * source.item_bytes
    source.first = plain.data_ptr()
    if plain.is_contiguous():
        source.order, source.strides = "C", ()
        source.low, source.high = source.first, source.first + source.size
    else:
        source.strides = tuple(stride * source.item_bytes for stride in plain.stride())
        _cover(source)
    if is_lazy:
        source.low = source.high = 0
    return source


def _of_ndarray(numpy: Any, array: Any, kind: str) -> Source:
    source = Source()
    source.kind, source.dtype = kind, check_ndarray(numpy, array)
    source.value = array
    source.shape = list(array.shape)
    source.item_bytes = array.itemsize
    source.size = array.nbytes
    source.first = array.__array_interface__["data"][0]
    if array.flags.c_contiguous:
        source.order, source.strides = "C", ()
        source.low, source.high = source.first, source.first + source.size
    else:
        source.strides = array.strides
        _cover(source)
    return source


def _cover(source: Source) -> None:
    """Sets which addresses it covers, and its order, of one with strides."""
    reach = [(length - 1) * stride for length, stride in zip(source.shape, source.strides, strict=True)]
    if not source.size:
        source.order, source.low, source.high = "C", source.first, source.first
        return
    source.low = source.first + sum(each for each in reach if each < 0)
    source.high = source.first + sum(each for each in reach if each > 0) + source.item_bytes
    source.order = order_of(source.shape, source.strides, source.item_bytes)


def order_of(shape: list[int], strides: tuple[int, ...], item_bytes: int) -> Any:
    """How the elements lie: ``C``, ``F``, or the axes from the slowest to the fastest; None where there are gaps."""
    axes = sorted(range(len(shape)), key=lambda axis: (-strides[axis], axis))
    expected = item_bytes
    for axis in reversed(axes):
        if shape[axis] != 1:
            if strides[axis] != expected:
                return None
            expected *= shape[axis]
    long = [axis for axis in axes if shape[axis] != 1]
    if long == sorted(long):
        return "C"
    if long == sorted(long, reverse=True):
        return "F"
    return axes


def strides_in_order(shape: list[int], order: Any, item_bytes: int) -> tuple[int, ...]:
    """Bytes from one index to the next, by axis, of elements that lie in this order."""
    axes = range(len(shape)) if order == "C" else range(len(shape) - 1, -1, -1) if order == "F" else order
    strides = [0] * len(shape)
    step = item_bytes
    for axis in reversed(list(axes)):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)
