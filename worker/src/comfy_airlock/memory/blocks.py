"""What keeps a block of memory: as the owner, as somebody who was given a lease, or as views of it in this process.

Each of these objects stands for one hold, which ends when the object is garbage. Finalizers run in any thread, in
forked children, at exit, and inside locks: these append to a queue and look whose process this is, and do nothing else.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import ref

from comfy_airlock.memory.ledger import BlockKey
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.spares import Place
from comfy_airlock.wire.errors import AirlockError

if TYPE_CHECKING:
    from comfy_airlock.memory.leases import Leases
    from comfy_airlock.memory.segments import OwnSegment, Segment


class Freed(NamedTuple):
    """A block of this process's that nobody holds."""

    segment: OwnSegment
    page: int
    pages: int

    @property
    def address(self) -> int:
        """Where this process may write to it."""
        return self.segment.address + self.page * PAGE_BYTES


class Unviewed(NamedTuple):
    """A mapping that nothing looks at."""

    address: int
    place: Place


class Dropped(NamedTuple):
    """A lease that this process was given and needs no more."""

    leases: Leases
    life: int
    key: BlockKey
    pages: int
    segment: Segment


Ended = Freed | Unviewed | Dropped


class EndedHolds:
    """The queue that finalizers put into, and whoever is told that there is something in it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """
        Args:
            wake: safe to be called by a finalizer.
        """
        self._process: Final = os.getpid()
        self._queue: deque[Ended] = deque()
        self._wake = wake
        self._is_woken = False

    def put(self, ended: Ended, getpid: Callable[[], int] = os.getpid) -> None:
        """For finalizers, also while the interpreter ends and modules are empty."""
        if getpid() == self._process:
            self._queue.append(ended)
            if not self._is_woken:
                self._is_woken = True
                self._wake()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def take(self) -> Iterator[Ended]:
        """What has ended since this was asked last, one by one: an interrupt loses no other."""
        self._is_woken = False
        while self._queue:
            yield self._queue.popleft()


class _End:
    """What tells that its only holder is garbage.

    Not the holder itself: others know that by a weak reference, which is there until its ``__del__`` is over, and would
    take up what is told to have ended. When this is, there is none any more.
    """

    __slots__ = ("_ended", "_what")

    def __init__(self, ended: EndedHolds, what: Ended) -> None:
        self._ended = ended
        self._what = what

    def __del__(self) -> None:
        self._ended.put(self._what)


class OwnBlock:
    """A block that this process allocated, freed when this is garbage: whoever holds or leases it out keeps it."""

    __slots__ = ("__weakref__", "_end", "key", "page", "pages", "segment")

    def __init__(self, segment: OwnSegment, page: int, pages: int, generation: int, ended: EndedHolds) -> None:
        self.segment = segment
        self.page = page
        self.pages = pages
        self.key = BlockKey(segment.number, page, generation)
        self._end = _End(ended, Freed(segment, page, pages))

    @property
    def address(self) -> int:
        """Where this process may write to it."""
        return self.segment.address + self.page * PAGE_BYTES

    @property
    def is_stale(self) -> bool:
        """Never: it is freed when this is gone."""
        return False


class HeldBlock:
    """A block of another process's that this one has a lease of, returned when this is garbage."""

    __slots__ = ("__weakref__", "_end", "key", "page", "pages", "segment")

    def __init__(self, leases: Leases, segment: Segment, key: BlockKey, pages: int, ended: EndedHolds) -> None:
        self.segment = segment
        self.page = key.page
        self.pages = pages
        self.key = key
        self._end = _End(ended, Dropped(leases, leases.life, key, pages, segment))

    @property
    def is_stale(self) -> bool:
        """Whether its owner has freed it, as no owner does that keeps to the contract."""
        try:
            return self.segment.generation_at(self.page) != self.key.generation
        except OSError:
            return True  # The segment is no more.


class GoneBlock:
    """A block that was named, and that nobody can have a lease of any more."""

    __slots__ = ("error", "key")
    is_stale = True

    def __init__(self, key: BlockKey, error: AirlockError | None = None) -> None:
        """
        Args:
            error: why, where that is not its owner's doing.
        """
        self.key = key
        self.error = error


Block = OwnBlock | HeldBlock


class Mapping:
    """A private mapping of pages of one segment, with the blocks that lie in it. Ended when this is garbage."""

    __slots__ = ("__weakref__", "_ended", "address", "blocks", "place")

    def __init__(self, address: int, place: Place, blocks: list[Block], ended: EndedHolds) -> None:
        # First what its end needs, which an interrupt may bring at any line.
        self._ended = ended
        self.place = place
        self.address = address
        # Their views keep them; who has none any more is not kept by its neighbours'.
        self.blocks = [ref(block) for block in blocks]

    def address_of(self, block: Block) -> int:
        """Where one of its blocks begins."""
        return self.address + (block.page - self.place.page) * PAGE_BYTES

    def block_of(self, low: int, high: int) -> Block | None:
        """The block that all of a range of addresses lies in."""
        for each in self.blocks:
            block = each()
            if block is not None:
                start = self.address_of(block)
                if start <= low and high <= start + block.pages * PAGE_BYTES:
                    return block
        return None

    def __del__(self) -> None:
        self._ended.put(Unviewed(self.address, self.place))
