"""Makes the table of a message's arrays: which of them the message holds itself, which lie in blocks, and which in
blocks that this process has been given or has given before, and are passed on as they are.

Arrays of one message that cover the same memory are sent as views of one copy of it: they alias where they arrive, as
they do here. Small ones of a kind are put together, as each entry of a table has its price.
"""

from __future__ import annotations

from operator import sub
from typing import Any, Final, Protocol

from comfy_airlock.memory import copying
from comfy_airlock.memory.blocks import Block, OwnBlock
from comfy_airlock.memory.nursery import BornBlock
from comfy_airlock.memory.sources import Source, source_of, strides_in_order
from comfy_airlock.wire.limits import INLINE_ARRAY_BYTES, INLINE_ARRAYS_BYTES_MAX
from comfy_airlock.wire.optional import loaded

_ALIGNMENT: Final = 64
_SHARES_BIN_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes up to which an array shares its block with others of its message."""
_BIN_BYTES_MAX: Final = 16 * 1024 * 1024

_BATCH_MIN: Final = 4
"""Arrays from which on it pays to look whether they are of a kind."""


class Store(Protocol):
    """Where blocks come from."""

    def allocate(self, size: int, /) -> OwnBlock:
        """A block of this process's for so many bytes."""
        ...

    def find(self, low: int, high: int, /) -> tuple[Block, int] | None:
        """The block that a range of addresses lies in, and where; None where it may not be passed on as it is."""
        ...

    def find_born(self, low: int, high: int, /) -> BornBlock | None:
        """The block that torch made what lies there in, if it may be sent as it is once nothing here looks at it."""


class _Bin:
    """What will be a block: what goes where in it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.size = 0
        self.contents: list[tuple[Source | _Extent, int]] = []

    def add(self, content: Source | _Extent) -> int:
        """Has ``content`` copied here; returns the offset."""
        offset = -(-self.size // _ALIGNMENT) * _ALIGNMENT + content.lead
        self.size = offset + content.size
        self.contents.append((content, offset))
        return offset


class _Extent:
    """Memory that several arrays cover."""

    __slots__ = ("keeps", "lead", "low", "size", "sources")

    def __init__(self, low: int, high: int, sources: list[int], keeps: object) -> None:
        self.low = low
        self.size = high - low
        self.sources = sources
        self.keeps = keeps
        # Elements are aligned in the copy as they are here, whichever of the arrays they are of.
        self.lead = low % _ALIGNMENT

    def copy_to(self, address: int, keeps: object) -> None:
        """As :meth:`Source.copy_to`."""
        copying.copy(address, self.low, self.size, (keeps, self.keeps))


class Packed:
    """A table, and the blocks that it names.

    Attributes:
        has_born: whether some of these blocks may have to be copied yet.
        copied, forwarded: bytes, without those of such blocks.
    """

    def __init__(self, entries: list[Any], blocks: list[Block | BornBlock], copied: int, forwarded: int) -> None:
        self.entries = entries
        self.blocks = blocks
        self.has_born = any(type(each) is BornBlock for each in blocks)
        self.copied = copied
        self.forwarded = forwarded


def pack(arrays: list[Any], store: Store | None) -> Packed:
    """The table for these arrays.

    Args:
        store: None where the other side takes no blocks: the message holds all of them then, and none alias.

    Raises:
        ValueUnsupported: one of them can't cross.
        LimitExceeded: there is no memory for them.
    """
    packing = _Packing(store)
    stacked = _stacked(arrays) if len(arrays) >= _BATCH_MIN else None
    return packing.pack(arrays) if stacked is None else packing.pack_batch(stacked, len(arrays))


class _Packing:
    """The making of one table."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._blocks: list[Block | BornBlock | _Bin] = []
        self._places: dict[Any, int] = {}
        self._open: _Bin | None = None
        self._inline_bytes = 0
        self._copied = 0
        self._forwarded = 0

    def pack(self, arrays: list[Any]) -> Packed:
        sources = [source_of(each) for each in arrays]
        data: list[Any] = [None] * len(sources)
        shared = _overlapping(sources) if len(sources) > 1 and self._store is not None else []
        for extent in shared:
            self._place_extent(extent, sources, data)
        for index, source in enumerate(sources):
            if data[index] is None:
                data[index] = self._place(source)
        entries = [
            [source.kind, source.dtype, source.shape, source.order or "C", each]
            for source, each in zip(sources, data, strict=True)
        ]
        return self._packed(entries)

    def pack_batch(self, stacked: Source, count: int) -> Packed:
        """The table of small arrays of a kind, which were put together."""
        data = self._place(stacked, INLINE_ARRAYS_BYTES_MAX)
        return self._packed([[stacked.kind, stacked.dtype, stacked.shape[1:], "C", data, count]])

    def _place(self, source: Source, inline_max: int = INLINE_ARRAY_BYTES - 1) -> Any:
        """Where one array goes that shares nothing with others."""
        is_small = source.size <= inline_max and self._inline_bytes + source.size <= INLINE_ARRAYS_BYTES_MAX
        if is_small or self._store is None:
            self._inline_bytes += source.size
            self._copied += source.size
            return source.data()
        found = self._found(self._store, source.low, source.high, [source]) if source.low else None
        if found is not None:
            place, at = found
            strides = None if source.order is not None else list(source.strides)
            return [place, at + source.first - source.low, strides]
        target = self._bin_for(source.size)
        self._copied += source.size
        return [target.index, target.add(source), None]

    def _place_extent(self, extent: _Extent, sources: list[Source], data: list[Any]) -> None:
        """Where the arrays go that cover the same memory."""
        assert self._store is not None
        of = [sources[index] for index in extent.sources]
        found = self._found(self._store, extent.low, extent.low + extent.size, of)
        if found is not None:
            place, offset = found
        else:
            target = self._bin_for(extent.size)
            place, offset = target.index, target.add(extent)
            self._copied += extent.size
        for index in extent.sources:
            source = sources[index]
            strides = source.strides or strides_in_order(source.shape, "C", source.item_bytes)
            data[index] = [place, offset + source.first - extent.low, list(strides)]

    def _found(self, store: Store, low: int, high: int, sources: list[Source]) -> tuple[int, int] | None:
        """The place of the block that all of these lie in, from ``low`` to ``high``, and where, if it is sent so."""
        size = min(high - low, sum(each.size for each in sources))
        found = store.find(low, high)
        if found is not None:
            self._forwarded += size
            return self._forward(found[0]), found[1]
        born = store.find_born(low, high)
        # A device goes on reading the pages that there were where it is told of them, whatever is mapped there later.
        if born is None or any(each.is_pinned for each in sources):
            return None
        place = self._forward(born)
        kept = self._blocks[place]
        assert isinstance(kept, BornBlock), "their keys are no others' keys"
        kept.named_bytes += size
        return place, low - born.address

    def _forward(self, block: Block | BornBlock) -> int:
        """The place of a block among the attachments."""
        place = self._places.get(block.key)
        if place is None:
            place = self._places[block.key] = len(self._blocks)
            self._blocks.append(block)
        return place

    def _bin_for(self, size: int) -> _Bin:
        if size > _SHARES_BIN_BYTES_MAX:
            return self._new_bin()
        if self._open is None or self._open.size + size > _BIN_BYTES_MAX:
            self._open = self._new_bin()
        return self._open

    def _new_bin(self) -> _Bin:
        made = _Bin(len(self._blocks))
        self._blocks.append(made)
        return made

    def _packed(self, entries: list[Any]) -> Packed:
        """The table, once all that it says is so."""
        blocks = [self._filled(each) if isinstance(each, _Bin) else each for each in self._blocks]
        return Packed(entries, blocks, self._copied, self._forwarded)

    def _filled(self, content: _Bin) -> Block:
        """A block with what goes there."""
        assert self._store is not None
        block = self._store.allocate(content.size)
        for each, offset in content.contents:
            each.copy_to(block.address + offset, block)
        return block


def _overlapping(sources: list[Source]) -> list[_Extent]:
    """The memory that more than one of these cover."""
    spans = sorted((each.low, each.high, index) for index, each in enumerate(sources) if each.low and each.size)
    extents: list[_Extent] = []
    group: list[int] = []
    low = high = 0
    for start, end, index in [*spans, (1 << 64, 1 << 64, -1)]:
        if start < high:
            group.append(index)
            high = max(high, end)
            continue
        if len(group) > 1:
            extents.append(_Extent(low, high, group, [sources[index].value for index in group]))
        group, low, high = [index], start, end
    return extents


def _stacked(arrays: list[Any]) -> Source | None:
    """Small arrays of one kind, type and shape, none of which overlap, as one; None where they are not such."""
    torch, numpy = loaded("torch"), loaded("numpy")
    kind = type(arrays[0])
    if torch is not None and kind is torch.Tensor:
        return _stacked_tensors(torch, arrays)
    if numpy is not None and kind is numpy.ndarray:
        return _stacked_ndarrays(numpy, arrays)
    return None


def _stacked_tensors(torch: Any, arrays: list[Any]) -> Source | None:
    first = arrays[0]
    if {type(each) for each in arrays} != {torch.Tensor} or len({each.dtype for each in arrays}) > 1:
        return None
    # Before its size: one that can't cross may have none.
    if first.is_quantized or not first.is_cpu or first.is_nested or first.layout is not torch.strided:
        return None
    size = first.numel() * first.element_size()
    if not 0 < size < INLINE_ARRAY_BYTES:
        return None
    try:
        if not all(map(torch.Tensor.is_contiguous, arrays)):
            return None
        if _any_closer(sorted(map(torch.Tensor.data_ptr, arrays)), size):
            return None
        # torch compares shapes, layouts and devices itself, several times as fast as a loop over them would.
        return source_of(torch.stack(arrays))
    except RuntimeError:
        return None  # They differ in one of those.


def _stacked_ndarrays(numpy: Any, arrays: list[Any]) -> Source | None:
    first = arrays[0]
    size = first.nbytes
    if not 0 < size < INLINE_ARRAY_BYTES:
        return None
    if {type(each) for each in arrays} != {numpy.ndarray} or len({each.dtype for each in arrays}) > 1:
        return None
    if len({each.shape for each in arrays}) > 1 or not all(each.flags.c_contiguous for each in arrays):
        return None
    starts = sorted([each.__array_interface__["data"][0] for each in arrays])
    if _any_closer(starts, size):
        return None
    return source_of(numpy.stack(arrays))


def _any_closer(starts: list[int], size: int) -> bool:
    return min(map(sub, starts[1:], starts)) < size
