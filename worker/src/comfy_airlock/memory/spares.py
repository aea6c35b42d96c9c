"""Private mappings that nothing looks at any more and nobody wrote to, kept for the next receipt of the same pages.

Blocks are used again and again, so the same pages come again and again. To map them and to have the kernel find each
page costs more than whatever looks at them: of 16 MiB that are read, 0.4 ms, beside 0.06 where they are mapped already.
What is unwritten shows what the owner has put there since, as a new mapping would.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from comfy_airlock.memory import libc
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.pagemap import PageMap

_SPARES_MAX: Final = 64
_SPARE_BYTES_MAX: Final = 256 * 1024 * 1024
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
        self._pages = 0

    def take(self, place: Place) -> int | None:
        """The address of one, which is the caller's now; None where there is none."""
        with self._lock:
            address = self._addresses.pop(place, None)
            if address is not None:
                self._pages -= place.pages
        if address is not None:
            libc.do_fork(address, place.pages * PAGE_BYTES)
        return address

    def put(self, place: Place, address: int) -> None:
        """Nothing looks at this mapping any more: keeps it, or ends it."""
        size = place.pages * PAGE_BYTES
        if size > _SPARE_BYTES_MAX or self._page_map.is_written(address, size):
            libc.unmap(address, size)
            return
        # A child would keep a segment that is given up here.
        libc.dont_fork(address, size)
        with self._lock:
            ended = [(place, address)] if place in self._addresses else []
            if not ended:
                self._addresses[place] = address
                self._pages += place.pages
            while len(self._addresses) > _SPARES_MAX or self._pages * PAGE_BYTES > _SPARE_BYTES_MAX:
                oldest = next(iter(self._addresses))
                ended.append((oldest, self._remove(oldest)))
        _unmap(ended)

    def drop(self, segment: int | None = None) -> int:
        """Ends those of a segment, or all; returns how many there were."""
        with self._lock:
            places = [each for each in self._addresses if segment is None or each.segment == segment]
            ended = [(each, self._remove(each)) for each in places]
        _unmap(ended)
        return len(ended)

    def _remove(self, place: Place) -> int:
        self._pages -= place.pages
        return self._addresses.pop(place)


def _unmap(ended: list[tuple[Place, int]]) -> None:
    for place, address in ended:
        libc.unmap(address, place.pages * PAGE_BYTES)
