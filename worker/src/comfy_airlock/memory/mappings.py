"""Private mappings of blocks, and which block an address of this process lies in.

Each receipt has one of its own: what was written to an earlier one stays with that. Blocks of one message that lie
together share a mapping, as the system gives a process some 65,000.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary, ref

from comfy_airlock.memory import libc
from comfy_airlock.memory.blocks import Block, EndedHolds, GoneBlock, Mapping
from comfy_airlock.memory.ledger import BlockKey
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.segments import Segment
from comfy_airlock.memory.spares import Place, Spares
from comfy_airlock.wire.errors import LeaseGone, LimitExceeded


class Found(NamedTuple):
    """Where an array lies."""

    block: Block
    offset: int
    """Bytes from the block's beginning."""


class Mappings:
    """Those of one process. Not safe from several threads: its owner sees to that."""

    def __init__(self, spares: Spares) -> None:
        self._spares = spares
        self._starts: list[int] = []
        self._by_start: dict[int, ref[Mapping]] = {}

    def find(self, low: int, high: int) -> Found | None:
        """The block that all of a range of addresses lies in, where it is one that was mapped here."""
        at = bisect_right(self._starts, low) - 1
        if at < 0:
            return None
        # An interrupt may have left one in one of the two alone.
        known = self._by_start.get(self._starts[at])
        mapping = None if known is None else known()
        block = None if mapping is None else mapping.block_of(low, high)
        if mapping is None or block is None:
            return None
        return Found(block, low - mapping.address_of(block))

    def add(self, mapping: Mapping) -> None:
        """A mapping was made."""
        self._by_start[mapping.address] = ref(mapping)
        insort(self._starts, mapping.address)

    def end(self, address: int, place: Place, *, may_come_again: bool) -> None:
        """Nothing looks at a mapping any more. It may never have been added, where others of its message failed.

        Args:
            may_come_again: whether its segment is in use.
        """
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and self._starts[at] == address:
            del self._starts[at]
        self._by_start.pop(address, None)
        if may_come_again:
            self._spares.put(place, address)
        else:
            self._spares.end(place, address)


def map_blocks(blocks: Sequence[Block | GoneBlock], spares: Spares, ended: EndedHolds) -> list[tuple[Mapping, Block]]:
    """Maps the blocks of a message; returns each with the mapping that it lies in.

    Raises:
        LeaseGone: one of them was freed by its owner.
        LimitExceeded: this process has as many mappings as the system allows, or no memory for one more.
    """
    there: list[Block] = []
    for block in blocks:
        if isinstance(block, GoneBlock) and block.error is not None:
            raise block.error.fresh()
        if block.is_stale or isinstance(block, GoneBlock):
            raise LeaseGone(f"block {block.key.page} of segment {block.key.segment} was taken back by its owner")
        there.append(block)
    if len(there) == 1:
        return [(_map(there[0].segment, there, spares, ended), there[0])]
    mappings: dict[BlockKey, Mapping] = {}
    for run in _runs(there):
        mapping = _map(run[0].segment, run, spares, ended)
        mappings.update((block.key, mapping) for block in run)
    return [(mappings[block.key], block) for block in there]


def _runs(blocks: list[Block]) -> list[list[Block]]:
    """The blocks, put together where they lie together."""
    runs: list[list[Block]] = []
    end = (-1, -1)
    for block in sorted({block.key: block for block in blocks}.values(), key=lambda each: each.key):
        if end == (block.key.segment, block.page):
            runs[-1].append(block)
        else:
            runs.append([block])
        end = (block.key.segment, block.page + block.pages)
    return runs


def _map(segment: Segment, blocks: list[Block], spares: Spares, ended: EndedHolds) -> Mapping:
    first = blocks[0].page
    place = Place(segment.number, first, blocks[-1].page + blocks[-1].pages - first)
    address = spares.take(place)
    if address is None:
        address = _map_anew(segment, place, spares)
    return Mapping(address, place, blocks, ended)


def _map_anew(segment: Segment, place: Place, spares: Spares) -> int:
    size = place.pages * PAGE_BYTES
    while True:
        try:
            return libc.map_private(segment.descriptor, place.page * PAGE_BYTES, size)
        except OSError as error:
            # One more is one too many.
            if spares.drop():
                continue
            raise LimitExceeded(
                f"a tensor of {size} bytes came that could not be mapped: {error.strerror or error}",
                hint="keep fewer received tensors (vm.max_map_count bounds how many there can be), or copies of them",
            ) from error


class View:
    """What an array's memory is kept by: the mapping, and the block in it."""

    __slots__ = ("block", "mapping")

    def __init__(self, mapping: Mapping, block: Block) -> None:
        self.mapping = mapping
        self.block = block


def buffer_of(mapping: Mapping, block: Block) -> Any:
    """The block as a writable buffer that keeps it, and its mapping."""
    buffer = libc.buffer_at(mapping.address_of(block), block.pages * PAGE_BYTES)
    buffer.view = View(mapping, block)
    return buffer


KeptBlocks = WeakValueDictionary[Any, Block]
"""Blocks that something in this process keeps, by their keys."""
