"""The memory that one connection shares with others: its arenas, the segments that it was given, and all leases.

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

from comfy_airlock.memory.arena import Arena
from comfy_airlock.memory.blocks import Block, EndedHolds, Freed, GoneBlock, OwnBlock, Unviewed
from comfy_airlock.memory.leases import Leases
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.mappings import Found, KeptBlocks, Mappings, buffer_of, map_blocks
from comfy_airlock.memory.pagemap import PageMap
from comfy_airlock.memory.room import memory_room, total_bytes
from comfy_airlock.memory.segments import OwnSegment, Segment
from comfy_airlock.memory.sources import source_of
from comfy_airlock.memory.unpacking import unpack
from comfy_airlock.wire.arrays import is_array_type
from comfy_airlock.wire.descriptor_lane import SEGMENT, DescriptorLane
from comfy_airlock.wire.errors import AirlockError, Disconnected, LimitExceeded, ValueUnsupported

AskServer = Callable[..., Any]
"""Calls a method of the server's with keyword arguments, and blocks for its answer."""

_GiB: Final = 1024 * 1024 * 1024
_IDLE_BYTES_MAX: Final = 4 * _GiB
"""Bytes of empty segments that are kept warm, or an eighth of the machine's memory where that is less."""

_IDLE_SECONDS: Final = 30.0
"""How long an empty segment is kept warm: others may need its memory, and can't ask for it."""

_RECLAIM_SECONDS: Final = 1.0
"""How long others may take to return what nothing needs, where memory is short."""
_LOOK_SECONDS: Final = 0.005
"""How often it is looked whether they have."""
_ASK_SECONDS: Final = 0.2
"""How often they are asked: whoever looked for garbage just before passes a request over."""

_COLLECT_SHARE_MAX: Final = 0.25
"""How much of this process's time others may have it spend in looking for garbage."""


class Memory:
    """What one connection shares.

    Attributes:
        lock: kept by all that belongs to it.
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
            wake_later: has :meth:`retire_old` called after so many seconds, on that thread.
        """
        self._process: Final = os.getpid()
        self.lock = threading.Lock()
        self.wake = wake
        self._wake_later = wake_later
        self._will_retire_old = False
        self.ended = EndedHolds(wake)
        self.kept: KeptBlocks = WeakValueDictionary()
        self.ask_server = ask_server
        self._lane = lane
        self._growing = threading.Lock()
        self._arenas: dict[int | None, Arena] = {}
        self._given: dict[int, Segment] = {}
        self._own: dict[int, OwnSegment] = {}
        self._mappings = Mappings(self.ended)
        self._page_map = PageMap()
        self._leases: WeakSet[Leases] = WeakSet()
        # Empty segments to be given up, and given ones whose owners are gone.
        self._surplus: list[OwnSegment] = []
        self._orphans: set[int] = set()
        self._idle_bytes_max = min(_IDLE_BYTES_MAX, total_bytes() // 8)
        self._high_water = 0
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

    # Blocks of this process's own.

    def allocate(self, size: int, audience: int | None) -> OwnBlock:
        """A block for so many bytes, all its pages present.

        Raises:
            LimitExceeded: there is no memory for it; says what was asked for, what there is, and who holds it.
        """
        pages = max(1, -(-size // PAGE_BYTES))
        self.settle()
        block = self._allocate(pages, audience)
        if block is None:
            with self._growing:
                block = self._allocate(pages, audience) or self._grow(pages, audience)
        return block

    def _allocate(self, pages: int, audience: int | None) -> OwnBlock | None:
        with self.lock:
            arena = self._arenas.get(audience)
            if arena is None:
                arena = self._arenas[audience] = Arena(self.ended)
            return self._take(arena, pages)

    def _take(self, arena: Arena, pages: int) -> OwnBlock | None:
        """A block of an arena's, which is known from now on; holds the lock."""
        block = arena.allocate(pages)
        if block is not None:
            self.kept[block.key] = block
        return block

    def _grow(self, pages: int, audience: int | None) -> OwnBlock:
        arena = self._arenas[audience]
        segment_pages = arena.segment_pages_for(pages)
        try:
            segment = self._make(segment_pages * PAGE_BYTES, audience, is_whole=arena.is_whole(pages))
        except LimitExceeded:
            self._give_up_idle()
            block = self._reclaim(pages, audience)
            if block is not None:
                return block
            try:
                # Where there is no room for one that others share, there may be for this block alone.
                segment = self._make((1 + pages) * PAGE_BYTES, audience, is_whole=True)
            except LimitExceeded as error:
                raise self._too_much(pages * PAGE_BYTES, error) from error
        with self.lock:
            arena.add(segment, pages)
            self._own[segment.number] = segment
            self._high_water = max(self._high_water, self._own_bytes())
            # Before anybody else looks for room.
            block = self._take(arena, pages)
        assert block is not None, "a segment that was made for a block has room for it"
        return block

    def _make(self, size: int, audience: int | None, *, is_whole: bool) -> OwnSegment:
        room = memory_room()
        if room is not None and size > room.free_bytes:
            raise LimitExceeded(f"{size} bytes were asked for, and {room.what} has {room.free_bytes} to give")
        asked = {} if audience is None else {"audience": audience}
        number: int = self.ask_server("make_segment", bytes=size, **asked)["segment"]
        try:
            segment = OwnSegment(number, self._lane.take(SEGMENT, number), is_whole=is_whole)
        except LimitExceeded:
            self.ask_server("drop_segment", segment=number)
            raise
        try:
            self.ask_server("seal_segment", segment=number)
        except BaseException:
            segment.release()
            raise
        return segment

    def _give_up_idle(self) -> None:
        """Gives all empty segments back: they may be of the wrong size for what is asked for."""
        self.settle()
        with self.lock:
            self._retire_empty(0)
        self.tidy()

    def _reclaim(self, pages: int, audience: int | None) -> OwnBlock | None:
        """Has others return what nothing needs, and waits for that; a block, if there is room for it then."""
        if not self._ask_back():
            return None
        began = asked = time.monotonic()
        while True:
            self.settle()
            block = self._allocate(pages, audience)
            now = time.monotonic()
            is_over = now >= began + _RECLAIM_SECONDS or not any(leases.given for leases in list(self._leases))
            if block is not None or is_over:
                break
            if now >= asked + _ASK_SECONDS:
                self._ask_back()
                asked = now
            time.sleep(_LOOK_SECONDS)
        self._give_up_idle()
        return block

    def _ask_back(self) -> bool:
        """Whether anybody was asked for what it holds."""
        asked = [leases for leases in list(self._leases) if leases.reclaim()]
        return bool(asked)

    def _too_much(self, size: int, error: LimitExceeded) -> LimitExceeded:
        holders = sorted(
            ((leases.given_bytes, leases.name, leases.given) for leases in list(self._leases) if leases.given),
            reverse=True,
        )
        held = ", ".join(f"{name} holds {given} bytes in {count} leases" for given, name, count in holders[:5])
        with self.lock:
            own = self._own_bytes()
        return LimitExceeded(
            f"there is no memory for a tensor of {size} bytes: {error.message}; this process shares {own} bytes"
            + (f", of which {held}" if held else ""),
            hint="have whoever holds tensors let go of them, or send less at once",
        )

    # Segments.

    def segment(self, number: int) -> Segment | None:
        """A segment that this process owns or was given; holds the lock."""
        return self._own.get(number) or self._given.get(number)

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
        return number in self._own

    def gone(self, number: int) -> None:
        """The server tells that a segment is no more."""
        with self.lock:
            segment = self._given.pop(number, None)
            for leases in self._leases:
                leases.forget(number)
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
        if not self.ended:
            return
        with self.lock:
            for each in self.ended.take():
                if isinstance(each, Freed):
                    self._free(each)
                elif isinstance(each, Unviewed):
                    self._mappings.end(each.address, each.size)
                else:
                    each.leases.dropped(each.key, each.pages, each.life)

    def _free(self, freed: Freed) -> None:
        freed.segment.free(freed.page, freed.pages)
        if freed.segment.is_empty:
            self._retire_empty(self._idle_bytes_max)
            self._retire_old_later()

    def _retire_old_later(self) -> None:
        if not self._will_retire_old:
            self._will_retire_old = True
            self._wake_later(_IDLE_SECONDS)

    def _empty(self) -> list[tuple[Arena, OwnSegment]]:
        """Holds the lock."""
        return [(arena, each) for arena in self._arenas.values() for each in arena.segments if each.is_empty]

    def _retire_empty(self, bytes_max: int) -> None:
        """Has empty segments given up, the oldest first, until there are no more bytes of them; holds the lock."""
        empty = self._empty()
        idle = sum(segment.size for _, segment in empty)
        for arena, segment in empty:
            if idle <= bytes_max:
                return
            idle -= segment.size
            self._retire(arena, segment)

    def _retire(self, arena: Arena, segment: OwnSegment) -> None:
        """Has one that is empty given up; holds the lock."""
        arena.remove(segment)
        del self._own[segment.number]
        for leases in self._leases:
            leases.forget(segment.number)
        self._surplus.append(segment)
        self.wake()

    def retire_old(self) -> None:
        """Gives up segments that have been empty for long, and looks again later where there are others."""
        self.settle()
        with self.lock:
            self._will_retire_old = False
            long_ago = time.monotonic() - _IDLE_SECONDS
            for arena, segment in self._empty():
                if segment.empty_since <= long_ago:
                    self._retire(arena, segment)
            if self._empty():
                self._retire_old_later()

    def tidy(self) -> None:
        """Does what has to be done some time: returns leases, gives up segments. On a thread that may block."""
        if self._collects:
            self._collects = False
            began = time.monotonic()
            gc.collect()
            ended = time.monotonic()
            self._collect_not_before = ended + (ended - began) * (1 / _COLLECT_SHARE_MAX - 1)
        self.settle()
        for leases in list(self._leases):
            leases.send_returns()
        with self.lock:
            surplus, self._surplus = self._surplus, []
            kept = {key.segment for key in list(self.kept.keys())}
            orphans = {number for number in self._orphans if number not in kept}
            self._orphans -= orphans
            given = [segment for number in orphans if (segment := self._given.pop(number, None)) is not None]
            for segment in given:
                for leases in self._leases:
                    leases.forget(segment.number)
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
        """
        mapped = map_blocks(blocks, self.ended)
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
        block = self.allocate(source.size, audience)
        source.copy_to(block.address)
        order = source.order or "C"
        (shared,) = unpack([[source.kind, source.dtype, source.shape, order, [0, 0, None]]], lambda: self.map([block]))
        return shared

    # How much there is.

    def count(self, copied: int, forwarded: int) -> None:
        """So many bytes were copied for a message, and so many more sent without a copy."""
        with self.lock:
            self.copied_bytes += copied
            self.forwarded_bytes += forwarded

    def _own_bytes(self) -> int:
        """Holds the lock."""
        return sum(segment.size for segment in self._own.values())

    def report(self) -> dict[str, int]:
        """How much is shared; PROTOCOL.md, "Methods of a worker", explains the fields."""
        self.check_process()
        self.settle()
        with self.lock:
            free = sum(segment.free_pages for segment in self._own.values()) * PAGE_BYTES
            size = self._own_bytes()
            leases = list(self._leases)
            return {
                "segments": len(self._own),
                "segment_bytes": size,
                "used_bytes": size - free,
                "high_water_bytes": self._high_water,
                "leases_given": sum(each.given for each in leases),
                "leases_held": sum(1 for block in self.kept.values() if block.key.segment not in self._own),
                "copied_bytes": self.copied_bytes,
                "forwarded_bytes": self.forwarded_bytes,
            }

    def close(self) -> None:
        """The connection has ended. What was received stays readable, for as long as it is kept."""
        for leases in list(self._leases):
            leases.end(is_last=True)
        self._idle_bytes_max = 0
        self.settle()
        with self.lock:
            given, self._given = list(self._given.values()), {}
            # What is still being copied to goes when it is let go of.
            self._retire_empty(0)
            surplus, self._surplus = self._surplus, []
        for segment in given:
            segment.close()
        for segment in surplus:
            segment.release()
        self._page_map.close()
