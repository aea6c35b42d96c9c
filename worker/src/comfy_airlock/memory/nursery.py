"""Blocks of this process's own that torch makes tensors in: what is made there is sent from where it lies.

A block that was sent, and that nobody holds any more, is offered to torch's allocator by the library of
``worker/native/nursery.c``: a tensor of as many pages is made there next time. Sent, it is leased as it is. What in
this process still looks at it by then sees a private mapping from there on, as receivers do: what is written to it is
seen here alone, and the kernel tells that it was.

Keeps to the lock of :class:`comfy_airlock.memory.memory.Memory`. The library is one per process: so is this.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right, insort
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from comfy_airlock.memory.blocks import EndedHolds, Freed, OwnBlock
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.wire.optional import loaded

if TYPE_CHECKING:
    from comfy_airlock.memory.segments import OwnSegment

OFFERED_BYTES_MIN: Final = 1024 * 1024
"""Bytes of a block that is worth it: less is copied in less time than it takes to find out."""

_TORCH_ALLOCATOR: Final = b"/libc10.so"
"""How the path of the library ends that asks libc for the memory of torch's tensors."""

_IN_USE: Final = 0
_SPENT: Final = 2
"""What a block is withdrawn as whose segment has what a forked child may still look at."""
_HELD_PRIVATE: Final = 2

_address, _size, _whether = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_bool
_FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "nursery_attach": (_whether, [ctypes.c_char_p]),
    "nursery_offer": (_whether, [_address, _size, ctypes.c_int, ctypes.c_int64]),
    "nursery_withdraw": (ctypes.c_int, [_address, _whether]),
    "nursery_spare_bytes": (_size, []),
    "nursery_let_rest": (None, [_address]),
    "nursery_hold": (ctypes.c_int, [_address]),
    "nursery_lease": (_whether, [_address]),
    "nursery_let_go": (None, [_address]),
    "nursery_abandon": (None, [_address]),
}


def bind(path: str) -> Any:
    """The library at a path, each of its functions with its types.

    Raises:
        OSError: it can't be loaded.
    """
    # Calls are short, and keep the interpreter's lock.
    library = ctypes.PyDLL(path)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class BornBlock:
    """A block that torch has made a tensor in, which nothing else is made in for as long as this lives.

    Attributes:
        address: where it is, and what tells it from others of its message.
        pages: how long it is.
        segment: the number of its segment.
        may_be_written: whether what is seen here may be another than what others see.
        named_bytes: of what the message has of it.
    """

    __slots__ = ("_let_go", "address", "key", "may_be_written", "named_bytes", "pages", "segment")

    def __init__(self, let_go: Callable[[int], None], freed: Freed, *, may_be_written: bool) -> None:
        self.address = self.key = freed.address
        self.pages = freed.pages
        self.segment = freed.segment.number
        self.may_be_written = may_be_written
        self.named_bytes = 0
        self._let_go: Callable[[int], None] | None = let_go

    def leased(self) -> None:
        """Its lease lets go of it from now on."""
        self._let_go = None

    def __del__(self) -> None:
        # In whatever thread, also inside locks: the library's own is held by nobody who runs Python.
        if self._let_go is not None:
            self._let_go(self.address)


class _Offer:
    """A block that is known to torch.

    Attributes:
        freed: where it is.
        block: what it was leased as last.
        leases: blocks that it was leased as, and that are not known yet to be garbage.
    """

    __slots__ = ("block", "freed", "leases")

    def __init__(self, freed: Freed) -> None:
        self.freed = freed
        self.block: ref[OwnBlock] | None = None
        self.leases = 0


class Nursery:
    """The blocks that are known to torch: those that it may take, those that it has, and those of them that were sent.

    Attributes:
        path: of the library, which is loaded once there is torch, and something to be offered; None where there is
            none, and once it was tried.
        unleased_bytes: of those that nobody has a lease of.
    """

    def __init__(self, ended: EndedHolds) -> None:
        """
        Args:
            ended: what the blocks' finalizers tell.
        """
        self._ended = ended
        self.path: str | None = None
        self._library: Any = None
        self._offers: dict[int, _Offer] = {}
        self._starts: list[int] = []
        self.unleased_bytes = 0

    @property
    def is_in_use(self) -> bool:
        """Whether there are any. For any thread, without the lock."""
        return bool(self._starts)

    def offer(self, freed: Freed) -> bool:
        """Offers a block that nobody holds. False where it can't be, or is too small."""
        size = freed.pages * PAGE_BYTES
        if size < OFFERED_BYTES_MIN or not self._open():
            return False
        segment, address = freed.segment, freed.address
        if not self._library.nursery_offer(address, size, segment.descriptor, freed.page * PAGE_BYTES):
            return False
        segment.end_generation(freed.page)
        self._offers[address] = _Offer(freed)
        insort(self._starts, address)
        self.unleased_bytes += size
        return True

    def _open(self) -> bool:
        if self.path is not None and loaded("torch") is not None:
            path, self.path = self.path, None
            try:
                library = bind(path)
            except OSError:
                return False  # It is not for this system: everything is copied.
            if library.nursery_attach(_TORCH_ALLOCATOR):
                self._library = library
        return self._library is not None

    @property
    def spare_bytes(self) -> int:
        """Of all blocks that nobody has."""
        return 0 if self._library is None else int(self._library.nursery_spare_bytes())

    def withdraw(self, *, spares_used: bool) -> bool:
        """Gives back to their segments what nobody has just now. Whether there was any.

        Args:
            spares_used: leaves what torch has had since it was offered, or since :meth:`withdraw_idle`.
        """
        before = len(self._offers)
        for address in [*self._starts]:
            outcome = self._library.nursery_withdraw(address, spares_used)
            if outcome == _IN_USE:
                continue
            segment, page, pages = self._forget(address)
            (segment.leave if outcome == _SPENT else segment.free)(page, pages)
        return len(self._offers) < before

    def withdraw_idle(self) -> None:
        """Gives back what torch has not had since this was last called, or since it was offered."""
        self.withdraw(spares_used=True)
        for address in self._starts:
            self._library.nursery_let_rest(address)

    def abandon(self, *, only_if_of_use: bool) -> None:
        """Leaves to torch what it has and nobody has a lease of: that is unmapped as torch frees it.

        Args:
            only_if_of_use: only where its segment is empty after that.
        """
        for segment, blocks in self._unleased().items():
            if only_if_of_use and segment.used_pages > sum(each.pages for each in blocks):
                continue
            for each in blocks:
                self._library.nursery_abandon(each.address)
                self._forget(each.address)
                segment.leave(each.page, each.pages)

    def _unleased(self) -> dict[OwnSegment, list[Freed]]:
        found: dict[OwnSegment, list[Freed]] = {}
        for offer in self._offers.values():
            if not offer.leases:
                found.setdefault(offer.freed.segment, []).append(offer.freed)
        return found

    def _forget(self, address: int) -> Freed:
        del self._starts[bisect_right(self._starts, address) - 1]
        freed = self._offers.pop(address).freed
        self.unleased_bytes -= freed.pages * PAGE_BYTES
        return freed

    # What was made there.

    def hold(self, low: int, high: int) -> BornBlock | None:
        """The block that torch has made what lies at these addresses in, if that is most of it."""
        at = bisect_right(self._starts, low) - 1
        if at < 0:
            return None
        freed = self._offers[self._starts[at]].freed
        size = freed.pages * PAGE_BYTES
        # For a small part, others would have to keep all of it.
        if high > freed.address + size or 2 * (high - low) < size:
            return None
        held: int = self._library.nursery_hold(freed.address)
        if not held:
            return None
        return BornBlock(self._library.nursery_let_go, freed, may_be_written=held == _HELD_PRIVATE)

    def lease(self, born: BornBlock) -> OwnBlock | None:
        """What a block is given away as, as it is now, and stays until that is garbage; None where it can't be."""
        offer = self._offers.get(born.address)
        # It may have been abandoned meanwhile.
        if offer is None or not self._library.nursery_lease(born.address):
            return None
        block = None if offer.block is None else offer.block()
        if block is None:
            segment, page, pages = offer.freed
            generation = segment.begin_generation(page)
            # In this order: interrupted between any two of these, the block is lost, and nobody takes it.
            offer.leases += 1
            if offer.leases == 1:
                self.unleased_bytes -= pages * PAGE_BYTES
            born.leased()
            block = OwnBlock(segment, page, pages, generation, self._ended)
            offer.block = ref(block)
        return block

    def takes_back(self, freed: Freed) -> bool:
        """Whether a block that was leased is one of these. If nobody has a lease of it, torch may take it again."""
        offer = self._offers.get(freed.address)
        if offer is None:
            return False
        offer.leases -= 1
        if not offer.leases:
            freed.segment.end_generation(freed.page)
            self.unleased_bytes += freed.pages * PAGE_BYTES
        self._library.nursery_let_go(freed.address)
        return True
