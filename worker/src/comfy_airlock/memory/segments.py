"""Segments as this process knows them: those that it owns and writes to, and those that it was given.

Knows nothing of who holds what. Every descriptor here is closed in forked children.
"""

from __future__ import annotations

import os
import time
from typing import Final

from comfy_airlock.memory import libc
from comfy_airlock.memory.allocator import PageAllocator
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.wire.errors import LimitExceeded
from comfy_airlock.wire.forking import held_by_this_process

_GENERATION_BYTES: Final = 4
_GENERATION_MAX: Final = 0xFFFF_FFFF
_GENERATIONS_PER_PAGE: Final = PAGE_BYTES // _GENERATION_BYTES


def pages_with_header(pages: int) -> int:
    """How long a segment must be that has so many pages for blocks, behind those that hold the generations."""
    return pages + pages // (_GENERATIONS_PER_PAGE - 1) + 1


class Segment:
    """One that this process has a descriptor of.

    Attributes:
        number: the server's number for it.
        descriptor: -1 once it is closed; what is mapped stays.
        pages: how long it is.
    """

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self.descriptor = descriptor
        self.pages = os.fstat(descriptor).st_size // PAGE_BYTES
        held_by_this_process.add(self)

    def generation_at(self, page: int) -> int:
        """The generation of the block that begins at this page; 0 where none does."""
        data = os.pread(self.descriptor, _GENERATION_BYTES, page * _GENERATION_BYTES)
        return int.from_bytes(data, "little")

    def close(self) -> None:
        """Closes the descriptor."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class OwnSegment(Segment):
    """One that this process writes to: mapped, all its pages there, and its blocks handed out here.

    Attributes:
        audience: whose it is to be shared with, by the server's number; None in a worker, which has one alone.
        is_whole: whether it is there for one block alone.
        empty_since: when it was left by its last block, on the monotonic clock.
    """

    def __init__(self, number: int, descriptor: int, *, is_whole: bool, audience: int | None = None) -> None:
        """
        Raises:
            LimitExceeded: the system has not enough memory for it.
        """
        super().__init__(number, descriptor)
        self.audience = audience
        self.is_whole = is_whole
        self._left: list[tuple[int, int]] = []
        self.size = self.pages * PAGE_BYTES
        try:
            os.posix_fallocate(descriptor, 0, self.size)
            self.address = libc.map_shared(descriptor, self.size)
        except OSError as error:
            self.close()
            raise self._refused(error) from error
        try:
            libc.dont_fork(self.address, self.size)
            libc.populate(self.address, self.size)
        except OSError as error:
            self.release()
            raise self._refused(error) from error
        first = 1 if is_whole else -(-self.pages // _GENERATIONS_PER_PAGE)
        self._allocator = PageAllocator(first, self.pages - first)
        self.empty_since = time.monotonic()
        self._generation = 0

    def _refused(self, error: OSError) -> LimitExceeded:
        return LimitExceeded(
            f"{self.size} bytes of shared memory could not be had: {error.strerror or error}",
            hint="send less at once, or free memory",
        )

    @property
    def is_empty(self) -> bool:
        """Whether it has no block."""
        return not self.used_pages

    @property
    def used_pages(self) -> int:
        """How many its blocks have."""
        return self._allocator.used_pages - sum(pages for _, pages in self._left)

    @property
    def has_left(self) -> bool:
        """Whether some of its pages are used no more for as long as it lives."""
        return bool(self._left)

    @property
    def free_pages(self) -> int:
        return self._allocator.free_pages

    def allocate(self, pages: int) -> tuple[int, int] | None:
        """A new block's first page and generation; None where it has no room."""
        page = self._allocator.allocate(pages)
        return None if page is None else (page, self.begin_generation(page))

    def begin_generation(self, page: int) -> int:
        """What begins at this page is a block that others may be given; returns its generation."""
        self._generation = self._generation % _GENERATION_MAX + 1
        libc.write_u32(self.address + page * _GENERATION_BYTES, self._generation)
        return self._generation

    def end_generation(self, page: int) -> None:
        """What begins at this page is nobody else's any more: whoever still names it finds another generation."""
        libc.write_u32(self.address + page * _GENERATION_BYTES, 0)

    def free(self, page: int, pages: int) -> None:
        """A block is nobody's any more."""
        self.end_generation(page)
        self._allocator.free(page, pages)
        self.empty_since = time.monotonic()

    def leave(self, page: int, pages: int) -> None:
        """Nothing is ever to lie here again, and it is not unmapped here: a block that somebody else has for good."""
        self.end_generation(page)
        self._left.append((page, pages))
        self.empty_since = time.monotonic()

    def release(self) -> None:
        """Gives the memory back, as soon as nobody else maps it."""
        at = 0
        for page, pages in [*sorted(self._left), (self.pages, 0)]:
            if page > at:
                libc.unmap(self.address + at * PAGE_BYTES, (page - at) * PAGE_BYTES)
            at = page + pages
        self.close()
