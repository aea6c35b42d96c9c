"""Private mappings that nothing looks at any more and nobody wrote to, kept for the next receipt of the same pages.

Blocks are used again and again, so the same pages come again and again. To map them and to have the kernel find each
page costs several times what it costs to read them (``npm run bench -- mappings``). What is unwritten shows what the
owner has put there since, as a new mapping would.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from comfy_airlock.memory import libc
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.pagemap import PageMap

_SPARES_MAX: Final = 64
_SPARE_PAGES_MAX: Final = 64 * 1024
"""Of address space, and no memory; but the kernel counts a part of its pages as this process's, which limits go by."""


class Place(NamedTuple):
    """Pages of a segment."""

    segment: int
    page: int
    pages: int


class Spares:
    """Those of one connection. Safe from several threads."""

    def __init__(self, page_map: PageMap) -> None:
        self._page_map = page_map
        self._lock = threading.Lock()
        # The least recently used ones first.
        self._addresses: dict[Place, int] = {}
        # What the system could not part from its neighbours, as a process has only so many mappings.
        self._stuck: list[tuple[int, Place]] = []

    def take(self, place: Place) -> int | None:
        """The address of one, which is the caller's now; None where there is none."""
        with self._lock:
            address = self._addresses.pop(place, None)
        if address is None:
            return None
        # Asked again: whoever locks all of a process's memory (mlockall) has it written to, this included.
        if not self._page_map.is_written(address, place.pages * PAGE_BYTES):
            try:
                libc.do_fork(address, place.pages * PAGE_BYTES)
            except OSError:
                pass
            else:
                return address
        self.end(place, address)
        return None

    def put(self, place: Place, address: int) -> None:
        """Nothing looks at this mapping any more: keeps it, or ends it."""
        ended = []
        if not self._may_keep(place, address):
            ended.append((address, place))
        with self._lock:
            if not ended and self._addresses.setdefault(place, address) != address:
                ended.append((address, place))
            while len(self._addresses) > _SPARES_MAX or sum(each.pages for each in self._addresses) > _SPARE_PAGES_MAX:
                oldest = next(iter(self._addresses))
                ended.append((self._addresses.pop(oldest), oldest))
        self._unmap(ended)

    def _may_keep(self, place: Place, address: int) -> bool:
        size = place.pages * PAGE_BYTES
        if place.pages > _SPARE_PAGES_MAX or self._page_map.is_written(address, size) or not self._page_map.is_quick:
            return False
        try:
            # A child would keep a segment that is given up here.
            libc.dont_fork(address, size)
        except OSError:
            return False
        return True

    def end(self, place: Place, address: int) -> None:
        """Ends a mapping that is not to come again; later, where there are too many for the system to do it now."""
        self._unmap([(address, place)])

    def drop(self, segment: int | None = None) -> int:
        """Ends those of a segment, or all; returns how many ended."""
        with self._lock:
            places = [each for each in self._addresses if segment is None or each.segment == segment]
            ended = [(self._addresses.pop(each), each) for each in places]
        return self._unmap(ended)

    def _unmap(self, ended: list[tuple[int, Place]]) -> int:
        """Unmaps these, and what is stuck; returns how many it could."""
        if self._stuck:
            with self._lock:
                ended, self._stuck = [*ended, *self._stuck], []
        count = 0
        # The kernel makes one mapping of neighbours: from an end of it, one can be taken with no more than there are.
        for address, place in sorted(ended):
            try:
                libc.unmap(address, place.pages * PAGE_BYTES)
                count += 1
            except OSError:
                with self._lock:
                    self._stuck.append((address, place))
        return count
