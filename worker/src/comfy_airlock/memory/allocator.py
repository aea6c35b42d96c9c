"""Which pages of one segment are free. Pure: page numbers in, page numbers out.

Invariant: free runs neither touch nor overlap, so the largest block that fits is the longest run. Twin of
``src/client/memory/page-allocator.ts``.
"""

from __future__ import annotations

from bisect import bisect_left, insort


class PageAllocator:
    """Hands out runs of pages.

    Attributes:
        free_pages: how many are free.
    """

    def __init__(self, first: int, pages: int) -> None:
        """
        Args:
            first: the first page that may be handed out.
            pages: how many pages there are from there on.
        """
        self._all = pages
        self.free_pages = pages
        self._starts = [first]
        self._lengths = {first: pages}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is handed out."""
        return self.free_pages == self._all

    @property
    def used_pages(self) -> int:
        """How many are handed out."""
        return self._all - self.free_pages

    def allocate(self, pages: int) -> int | None:
        """The first of so many pages that follow one another; None where there are none.

        The shortest run that is long enough, and of those the first: what is used again is what was used before.
        """
        fits = [(length, start) for start, length in self._lengths.items() if length >= pages]
        if not fits:
            return None
        length, start = min(fits)
        self._remove(start)
        if length > pages:
            self._add(start + pages, length - pages)
        self.free_pages -= pages
        return start

    def free(self, start: int, pages: int) -> None:
        """Takes back pages that were handed out together."""
        self.free_pages += pages
        at = bisect_left(self._starts, start)
        if at < len(self._starts) and self._starts[at] == start + pages:
            pages += self._remove(start + pages)
        if at > 0:
            before = self._starts[at - 1]
            if before + self._lengths[before] == start:
                pages += self._remove(before)
                start = before
        self._add(start, pages)

    def _add(self, start: int, length: int) -> None:
        insort(self._starts, start)
        self._lengths[start] = length

    def _remove(self, start: int) -> int:
        del self._starts[bisect_left(self._starts, start)]
        return self._lengths.pop(start)
