"""Memory that this process writes tensors to: segments that it owns for one audience, and the blocks in them.

A block is allocated here, without asking anybody, as long as a segment has room: pages that were used before are used
again, as the first touch of a page costs several times what a copy does. Small blocks have segments of their own, so
that one of them doesn't keep 64 MiB; a block that is larger than a share of a segment has one to itself, used again by
size.

Not safe from several threads: its owner, :class:`comfy_airlock.memory.heap.Heap`, sees to that, and makes segments.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from comfy_airlock.memory.blocks import EndedHolds, OwnBlock
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.segments import OwnSegment, pages_with_header

_MiB_PAGES: Final = 1024 * 1024 // PAGE_BYTES


class _Size(NamedTuple):
    """A kind of segment that blocks share."""

    block_pages_max: int
    segment_pages: int


_SMALL: Final = _Size(_MiB_PAGES, pages_with_header(16 * _MiB_PAGES))
_MEDIUM: Final = _Size(32 * _MiB_PAGES, pages_with_header(64 * _MiB_PAGES))

_WASTE_PAGES: Final = 16 * _MiB_PAGES
"""Pages of a whole segment that a smaller block may leave unused, or as many as it has itself."""


class Arena:
    """The segments of one audience."""

    def __init__(self, ended: EndedHolds) -> None:
        self._ended = ended
        self._shared: dict[_Size, list[OwnSegment]] = {_SMALL: [], _MEDIUM: []}
        self._whole: list[OwnSegment] = []

    @staticmethod
    def _size_of(pages: int) -> _Size | None:
        if pages <= _SMALL.block_pages_max:
            return _SMALL
        return _MEDIUM if pages <= _MEDIUM.block_pages_max else None

    def segment_pages_for(self, pages: int) -> int:
        """How long the segment has to be that is made where there is no room for a block of so many pages."""
        size = self._size_of(pages)
        return 1 + pages if size is None else size.segment_pages

    def is_whole(self, pages: int) -> bool:
        """Whether a block of so many pages has a segment to itself."""
        return self._size_of(pages) is None

    def allocate(self, pages: int) -> OwnBlock | None:
        """A block of so many pages; None where there is no room for it."""
        size = self._size_of(pages)
        fits = [each for each in self._whole if each.is_empty and self._is_worth(each, pages)]
        for segment in [*([] if size is None else self._shared[size]), *sorted(fits, key=lambda each: each.pages)[:1]]:
            allocated = segment.allocate(pages)
            if allocated is not None:
                return OwnBlock(segment, allocated[0], pages, allocated[1], self._ended)
        return None

    @staticmethod
    def _is_worth(segment: OwnSegment, pages: int) -> bool:
        return pages <= segment.pages - 1 <= pages + min(pages, _WASTE_PAGES)

    def add(self, segment: OwnSegment, pages: int) -> None:
        """Takes a segment that was made for a block of so many pages, and maybe for others."""
        size = None if segment.is_whole else self._size_of(pages)
        (self._whole if size is None else self._shared[size]).append(segment)

    def remove(self, segment: OwnSegment) -> None:
        """Uses a segment no more, which is empty."""
        for each in (*self._shared.values(), self._whole):
            if segment in each:
                each.remove(segment)

    @property
    def segments(self) -> list[OwnSegment]:
        """All that there are."""
        return [segment for each in (*self._shared.values(), self._whole) for segment in each]
