"""The memory that one connection shares with others: its own, the segments that it was given, and all leases.

One for each connection to a server. Owns the lock that all of these keep to; what blocks (the server, the kernel) is
done outside it, and finalizers never take it.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakSet, WeakValueDictionary

from comfy_airlock.memory.blocks import Block, EndedHolds, Freed, GoneBlock, Unviewed
from comfy_airlock.memory.heap import Heap
from comfy_airlock.memory.leases import Leases
from comfy_airlock.memory.mappings import Found, KeptBlocks, Mappings, buffer_of, map_blocks
from comfy_airlock.memory.nursery import BornBlock, Nursery
from comfy_airlock.memory.pagemap import PageMap
from comfy_airlock.memory.segments import Segment
from comfy_airlock.memory.sources import source_of
from comfy_airlock.memory.spares import Spares
from comfy_airlock.memory.unpacking import unpack
from comfy_airlock.wire.arrays import is_array_type
from comfy_airlock.wire.descriptor_lane import SEGMENT, DescriptorLane
from comfy_airlock.wire.errors import AirlockError, Disconnected, ValueUnsupported

AskServer = Callable[..., Any]
"""Calls a method of the server's with keyword arguments, and blocks for its answer."""

_COLLECT_SHARE_MAX: Final = 0.25
"""How much of this process's time others may have it spend in looking for garbage."""


class Memory:
    """What one connection shares.

    Attributes:
        lock: kept by all that belongs to it.
        heap: this process's own segments.
        ended: what finalizers say.
        kept: blocks that something here keeps, by key; under the lock.
    """

    def __init__(
        self, lane: DescriptorLane, ask_server: AskServer, wake: Callable[[], None], wake_later: Callable[[float], None]
    ) -> None:
        """
        Args:
            lane: where the server passes segments.
            ask_server: for any thread but the one that reads.
            wake: has :meth:`tidy` called soon, on a thread for that; safe to be called by a finalizer.
            wake_later: has the heap's :meth:`Heap.retire_old` called after so many seconds, on that thread.
        """
        self._process: Final = os.getpid()
        self.lock = threading.Lock()
        self.wake = wake
        self.wake_later = wake_later
        self.ended = EndedHolds(wake)
        self.kept: KeptBlocks = WeakValueDictionary()
        self.ask_server = ask_server
        self._lane = lane
        self._nursery = Nursery(self.ended)
        self.heap = Heap(self, lane, self._nursery)
        self._given: dict[int, Segment] = {}
        self._page_map = PageMap()
        self._spares = Spares(self._page_map)
        self._mappings = Mappings(self._spares)
        self._leases: WeakSet[Leases] = WeakSet()
        # Given segments whose owners are gone.
        self._orphans: set[int] = set()
        self._collects = False
        self._collect_not_before = float("-inf")
        self.copied_bytes = 0
        self.forwarded_bytes = 0

    def check_process(self) -> None:
        """Raises Disconnected in a forked child, which has neither the segments mapped nor the threads that hold locks.

        To be called before a lock is taken.
        """
        if os.getpid() != self._process:
            raise Disconnected(
                "this memory is shared by the process that was forked",
                hint="call connect() in the child, after the fork",
            )

    def add(self, leases: Leases) -> None:
        """There is another side to share with."""
        self._leases.add(leases)

    def forget(self, segment: int) -> None:
        """A segment is no more, whoever it was shared with; holds the lock."""
        for leases in self._leases:
            leases.forget(segment)
        self._spares.drop(segment)

    @property
    def leases(self) -> list[Leases]:
        """Those with every other side."""
        return list(self._leases)

    # Segments.

    def segment(self, number: int) -> Segment | None:
        """A segment that this process owns or was given; holds the lock."""
        return self.heap.own.get(number) or self._given.get(number)

    def segment_given(self, number: int) -> Segment | None:
        """As :meth:`segment`, and looks for it where the server passes it; holds the lock."""
        segment = self.segment(number)
        if segment is None:
            descriptor = self._lane.find(SEGMENT, number)
            if descriptor is not None:
                segment = self._given[number] = Segment(number, descriptor)
        return segment

    def owns(self, number: int) -> bool:
        """Whether a segment is this process's; holds the lock."""
        return number in self.heap.own

    def gone(self, number: int) -> None:
        """The server tells that a segment is no more."""
        with self.lock:
            segment = self._given.pop(number, None)
            self.forget(number)
        # It may lie there still, or there may have been no room for it.
        self._lane.discard(SEGMENT, number)
        if segment is not None:
            segment.close()

    def orphaned(self, numbers: set[int]) -> None:
        """The process that these came from is gone: each goes when nothing of it is kept."""
        with self.lock:
            self._orphans |= {number for number in numbers if number in self._given}
        if numbers:
            self.wake()

    # What has ended.

    def settle(self) -> None:
        """Takes in what finalizers have said: frees blocks, ends mappings, notes what is to be returned."""
        if not self.ended or os.getpid() != self._process:
            return
        with self.lock:
            for each in self.ended.take():
                if isinstance(each, Freed):
                    self.heap.free(each)
                elif isinstance(each, Unviewed):
                    is_known = self.segment(each.place.segment) is not None
                    self._mappings.end(each.address, each.place, may_come_again=is_known)
                else:
                    each.leases.dropped(each.key, each.pages, each.life)

    def tidy(self) -> None:
        """Does what has to be done some time: returns leases, gives up segments. On a thread that may block."""
        if self._collects:
            self._collects = False
            began = time.monotonic()
            gc.collect()
            ended = time.monotonic()
            self._collect_not_before = ended + (ended - began) * (1 / _COLLECT_SHARE_MAX - 1)
        self.settle()
        for leases in self.leases:
            leases.send_returns()
        with self.lock:
            surplus = self.heap.take_surplus()
            kept = {key.segment for key in list(self.kept.keys())}
            orphans = {number for number in self._orphans if number not in kept}
            self._orphans -= orphans
            given = [segment for number in orphans if (segment := self._given.pop(number, None)) is not None]
            for segment in given:
                self.forget(segment.number)
        for segment in surplus:
            segment.release()
        for segment in given:
            segment.close()
        for number in [segment.number for segment in (*surplus, *given)]:
            try:
                self.ask_server("drop_segment", segment=number)
            except Disconnected:
                return
            except AirlockError:
                pass  # It was gone already.

    def reclaimed(self) -> None:
        """Another process is short of memory: has :meth:`tidy` return what nothing needs, garbage included, soon."""
        if time.monotonic() >= self._collect_not_before:
            self._collects = True
        self.wake()

    # Where things are.

    def map(self, blocks: Sequence[Block | GoneBlock]) -> list[Any]:
        """The blocks of one message as writable buffers, that keep them. What is written there is seen here alone.

        Raises:
            LeaseGone, LimitExceeded: as :func:`map_blocks`.
            Disconnected: as :meth:`check_process`.
        """
        self.check_process()
        mapped = map_blocks(blocks, self._spares, self.ended)
        with self.lock:
            for mapping in {mapping.address: mapping for mapping, _ in mapped}.values():
                self._mappings.add(mapping)
        return [buffer_of(mapping, block) for mapping, block in mapped]

    def find_unwritten(self, low: int, high: int) -> Found | None:
        """The block that these addresses lie in, if it was mapped here and nobody has written to them since."""
        with self.lock:
            found = self._mappings.find(low, high)
        if found is None or self._page_map.is_written(low, high - low):
            return None
        return found

    def hold_born(self, low: int, high: int) -> BornBlock | None:
        """The block that torch made what lies at these addresses in, if nobody has written to it since it was sent."""
        if not self._nursery.is_in_use:
            return None
        with self.lock:
            born = self._nursery.hold(low, high)
        if born is not None and born.may_be_written and self._page_map.is_written(low, high - low):
            return None
        return born

    def share(self, array: Any, audience: int | None) -> Any:
        """A copy of an array in a block, mapped as what is received is: it is sent without a copy until written to.

        Raises:
            ValueUnsupported: it can't cross.
            LimitExceeded: there is no memory for it.
        """
        if not is_array_type(type(array)):
            raise ValueUnsupported(f"a {type(array).__qualname__} is neither a tensor nor a numpy array")
        self.check_process()
        source = source_of(array)
        if not source.size:
            return array
        block = self.heap.allocate(source.size, audience)
        source.copy_to(block.address, block)
        order = source.order or "C"
        (shared,) = unpack([[source.kind, source.dtype, source.shape, order, [0, 0, None]]], lambda: self.map([block]))
        return shared

    # How much there is.

    def count(self, copied: int, forwarded: int) -> None:
        """So many bytes were copied for a message, and so many more sent without a copy."""
        with self.lock:
            self.copied_bytes += copied
            self.forwarded_bytes += forwarded

    def report(self) -> dict[str, int]:
        """How much is shared; PROTOCOL.md, "Methods of a worker", explains the fields."""
        self.check_process()
        self.settle()
        with self.lock:
            heap, leases = self.heap, self.leases
            size = heap.size
            return {
                "segments": len(heap.own),
                "segment_bytes": size,
                "used_bytes": size - heap.free_bytes,
                "high_water_bytes": heap.high_water,
                "leases_given": sum(each.given for each in leases),
                "leases_held": sum(1 for block in self.kept.values() if block.key.segment not in heap.own),
                "copied_bytes": self.copied_bytes,
                "forwarded_bytes": self.forwarded_bytes,
            }

    def close(self) -> None:
        """The connection has ended. What was received stays readable, for as long as it is kept."""
        if os.getpid() != self._process:
            return  # A forked child has none of it.
        for leases in self.leases:
            leases.end(is_last=True)
        self.settle()
        with self.lock:
            given, self._given = list(self._given.values()), {}
            surplus = self.heap.close()
        self._spares.drop()
        for segment in given:
            segment.close()
        for segment in surplus:
            segment.release()
        self._page_map.close()
