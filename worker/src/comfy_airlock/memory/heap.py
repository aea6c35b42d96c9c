"""The segments that this process owns, and the blocks that it allocates there: by audience, an arena for each.

Makes segments where there is no room, has others return what they hold where there is no memory for one, and gives up
those that nothing was in for long. Keeps to the lock of :class:`comfy_airlock.memory.memory.Memory`; what blocks (the
server, the kernel, others) is done outside it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

from comfy_airlock.memory import copying
from comfy_airlock.memory.arena import Arena
from comfy_airlock.memory.blocks import Freed, OwnBlock
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.nursery import BornBlock, Nursery
from comfy_airlock.memory.room import memory_room, total_bytes
from comfy_airlock.memory.segments import OwnSegment
from comfy_airlock.wire.descriptor_lane import SEGMENT, DescriptorLane
from comfy_airlock.wire.errors import BadRequest, LimitExceeded, Unauthorized

if TYPE_CHECKING:
    from comfy_airlock.memory.memory import Memory

_GiB: Final = 1024 * 1024 * 1024
_IDLE_BYTES_MAX: Final = 4 * _GiB
"""Bytes of empty segments that are kept warm, or an eighth of the machine's memory where that is less."""

_COMMON_AUDIENCE: Final = 0
"""All packs of a host that have no memory of their own."""

_IDLE_SECONDS: Final = 30.0
"""How long an empty segment is kept warm: others may need its memory, and can't ask for it."""

_RECLAIM_SECONDS: Final = 1.0
"""How long others may take to return what nothing needs, where memory is short."""
_LOOK_SECONDS: Final = 0.005
"""How often it is looked whether they have."""
_ASK_SECONDS: Final = 0.2
"""How often they are asked: whoever looked for garbage just before passes a request over."""


class Heap:
    """Those of one connection.

    Attributes:
        own: the segments by number; under the lock.
        high_water: the most bytes of them that there were.
    """

    def __init__(self, memory: Memory, lane: DescriptorLane, nursery: Nursery) -> None:
        """
        Args:
            lane: where the server passes segments.
            nursery: has torch make tensors in what is free, where it can.
        """
        self._memory = memory
        self._lane = lane
        self._nursery = nursery
        self._knows_nursery = False
        self._growing = threading.Lock()
        self._arenas: dict[int | None, Arena] = {}
        self.own: dict[int, OwnSegment] = {}
        # Empty ones, to be given up.
        self._surplus: list[OwnSegment] = []
        self._idle_bytes_max = min(_IDLE_BYTES_MAX, total_bytes() // 8)
        self._will_retire_old = False
        self._is_closed = False
        self.high_water = 0

    def allocate(self, size: int, audience: int | None) -> OwnBlock:
        """A block for so many bytes, all its pages present.

        Raises:
            LimitExceeded: there is no memory for it; says what was asked for, what there is, and who holds it.
        """
        pages = max(1, -(-size // PAGE_BYTES))
        self._memory.settle()
        block = self._allocate(pages, audience)
        if block is None:
            with self._growing:
                block = self._allocate(pages, audience) or self._grow(pages, audience)
        return block

    def send_born(self, born: BornBlock, audience: int | None) -> OwnBlock:
        """A block that torch made a tensor in, to be given away as it is; a copy where the system is too old for that.

        Raises:
            LimitExceeded: as :meth:`allocate`.
        """
        size = born.pages * PAGE_BYTES
        with self._memory.lock:
            leased = self._nursery.lease(born)
            if leased is not None:
                self._memory.kept[leased.key] = leased
        if leased is not None:
            self._memory.count(0, born.named_bytes)
            return leased
        block = self.allocate(size, audience)
        copying.copy(block.address, born.address, size, (block, born))
        self._memory.count(born.named_bytes, 0)
        return block

    def _allocate(self, pages: int, audience: int | None) -> OwnBlock | None:
        with self._memory.lock:
            arena = self._arenas.get(audience)
            if arena is None:
                arena = self._arenas[audience] = Arena(self._memory.ended)
            return self._take(arena, pages)

    def _take(self, arena: Arena, pages: int) -> OwnBlock | None:
        """A block of an arena's, which is known from now on; holds the lock."""
        block = arena.allocate(pages)
        if block is not None:
            self._memory.kept[block.key] = block
        return block

    # Where there is no room.

    def _grow(self, pages: int, audience: int | None) -> OwnBlock:
        # Where torch has used it, it may as well have another block, while that is not too much.
        is_much = self._nursery.spare_bytes + pages * PAGE_BYTES > self._idle_bytes_max
        block = self._allocate_of_offered(pages, audience, spares_used=not is_much)
        if block is not None:
            return block
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
        with self._memory.lock:
            arena.add(segment, pages)
            self.own[segment.number] = segment
            self.high_water = max(self.high_water, self.size)
            # Before anybody else looks for room.
            block = self._take(arena, pages)
        assert block is not None, "a segment that was made for a block has room for it"
        return block

    def _allocate_of_offered(self, pages: int, audience: int | None, *, spares_used: bool) -> OwnBlock | None:
        """A block of what torch was offered, and may do without."""
        with self._memory.lock:
            is_any = self._nursery.withdraw(spares_used=spares_used)
            self.retire_empty(self._idle_bytes_max)
        return self._allocate(pages, audience) if is_any else None

    def _make(self, size: int, audience: int | None, *, is_whole: bool) -> OwnSegment:
        room = memory_room()
        if room is not None and size > room.free_bytes:
            raise LimitExceeded(f"{size} bytes were asked for, and {room.what} has {room.free_bytes} to give")
        ask_server = self._memory.ask_server
        if not self._knows_nursery:
            self._find_nursery()
        asked = {} if audience is None else {"audience": audience}
        number: int = ask_server("make_segment", bytes=size, **asked)["segment"]
        try:
            segment = OwnSegment(number, self._lane.take(SEGMENT, number), is_whole=is_whole, audience=audience)
        except LimitExceeded:
            ask_server("drop_segment", segment=number)
            raise
        try:
            ask_server("seal_segment", segment=number)
        except BaseException:
            segment.release()
            raise
        return segment

    def _find_nursery(self) -> None:
        self._knows_nursery = True
        if os.environ.get("AIRLOCK_NURSERY") == "0":
            return
        try:
            self._nursery.path = self._memory.ask_server("nursery")["path"]
        except (BadRequest, Unauthorized):
            pass  # The server is older than this is.

    def _give_up_idle(self) -> None:
        """Gives all empty segments back: they may be of the wrong size for what is asked for."""
        self._memory.settle()
        with self._memory.lock:
            self._nursery.withdraw(spares_used=False)
            self._nursery.abandon(only_if_of_use=True)
            self.retire_empty(0)
        self._memory.tidy()

    def _reclaim(self, pages: int, audience: int | None) -> OwnBlock | None:
        """Has others return what nothing needs, and waits for that; a block, if there is room for it then."""
        if not self._ask_back():
            return None
        began = asked = time.monotonic()
        while True:
            self._memory.settle()
            block = self._allocate(pages, audience) or self._allocate_of_offered(pages, audience, spares_used=False)
            now = time.monotonic()
            is_over = now >= began + _RECLAIM_SECONDS or not any(leases.given for leases in self._memory.leases)
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
        asked = [leases for leases in self._memory.leases if leases.reclaim()]
        return bool(asked)

    def _too_much(self, size: int, error: LimitExceeded) -> LimitExceeded:
        holders = sorted(
            ((leases.given_bytes, leases.name, leases.given) for leases in self._memory.leases if leases.given),
            reverse=True,
        )
        held = ", ".join(f"{name} holds {given} bytes in {count} leases" for given, name, count in holders[:5])
        with self._memory.lock:
            own = self.size
        return LimitExceeded(
            f"there is no memory for a tensor of {size} bytes: {error.message}; this process shares {own} bytes"
            + (f", of which {held}" if held else ""),
            hint="have whoever holds tensors let go of them, or send less at once",
        )

    # Where nothing is in them.

    def free(self, freed: Freed) -> None:
        """A block is nobody's; holds the lock."""
        is_torchs = self._nursery.takes_back(freed) or self._offers(freed)
        if not is_torchs:
            freed.segment.free(freed.page, freed.pages)
        elif self._is_closed:
            self._end_offers()
        elif self._nursery.spare_bytes > self._idle_bytes_max:
            self._nursery.withdraw(spares_used=False)
        if is_torchs or freed.segment.is_empty:
            self.retire_empty(self._idle_bytes_max - self._nursery.spare_bytes)
            self._retire_old_later()

    def _end_offers(self) -> None:
        """Has torch make nothing here any more. What it has is its own; holds the lock."""
        self._nursery.withdraw(spares_used=False)
        self._nursery.abandon(only_if_of_use=False)

    def _offers(self, freed: Freed) -> bool:
        # Who has memory of its own may look at all that lies there, and is not to see what was never meant for it.
        is_for_all = freed.segment.audience in (None, _COMMON_AUDIENCE)
        is_much = self._nursery.spare_bytes + freed.pages * PAGE_BYTES > self._idle_bytes_max
        return is_for_all and not is_much and self._nursery.offer(freed)

    def _retire_old_later(self) -> None:
        if not self._will_retire_old:
            self._will_retire_old = True
            self._memory.wake_later(_IDLE_SECONDS)

    def _empty(self) -> list[tuple[Arena, OwnSegment]]:
        """Holds the lock."""
        return [(arena, each) for arena in self._arenas.values() for each in arena.segments if each.is_empty]

    def retire_empty(self, bytes_max: int) -> None:
        """Has empty segments given up, the oldest first, until there are no more bytes of them; holds the lock."""
        empty = self._empty()
        idle = sum(segment.size for _, segment in empty)
        for arena, segment in empty:
            if idle > bytes_max or segment.has_left:
                idle -= segment.size
                self._retire(arena, segment)

    def _retire(self, arena: Arena, segment: OwnSegment) -> None:
        """Has one that is empty given up; holds the lock."""
        arena.remove(segment)
        del self.own[segment.number]
        self._memory.forget(segment.number)
        self._surplus.append(segment)
        self._memory.wake()

    def retire_old(self) -> None:
        """Gives up segments that have been empty for long, and looks again later where there are others."""
        self._memory.settle()
        with self._memory.lock:
            self._will_retire_old = False
            self._nursery.withdraw_idle()
            long_ago = time.monotonic() - _IDLE_SECONDS
            for arena, segment in self._empty():
                if segment.empty_since <= long_ago:
                    self._retire(arena, segment)
            if self._empty() or self._nursery.unleased_bytes:
                self._retire_old_later()

    def take_surplus(self) -> list[OwnSegment]:
        """Those that are given up, to be released; holds the lock."""
        surplus, self._surplus = self._surplus, []
        return surplus

    def close(self) -> list[OwnSegment]:
        """Keeps no empty ones from now on; returns as :meth:`take_surplus`, and holds the lock."""
        self._is_closed = True
        self._idle_bytes_max = 0
        self._end_offers()
        # What is still being copied to goes when it is let go of.
        self.retire_empty(0)
        return self.take_surplus()

    # How much there is.

    @property
    def size(self) -> int:
        """Bytes of all of them; holds the lock."""
        return sum(segment.size for segment in self.own.values())

    @property
    def free_bytes(self) -> int:
        """Bytes in them that nothing which was sent, or is to be, lies in; holds the lock."""
        return sum(segment.free_pages for segment in self.own.values()) * PAGE_BYTES + self._nursery.unleased_bytes
