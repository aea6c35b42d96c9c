"""Which pages of a segment are free, against a model that marks each page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.memory.allocator import PageAllocator

FIRST, PAGES = 3, 24


def longest_run(taken: list[bool]) -> int:
    runs = "".join("x" if each else "." for each in taken).split("x")
    return max(map(len, runs))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, PAGES + 1)), max_size=60))
def test_pages_are_handed_out_once_and_joined_when_they_come_back(history: list[tuple[bool, int]]) -> None:
    allocator = PageAllocator(FIRST, PAGES)
    taken = [False] * PAGES
    blocks: list[tuple[int, int]] = []
    for is_allocation, number in history:
        if is_allocation:
            start = allocator.allocate(number)
            # It finds a run wherever there is one: free runs are always whole.
            assert (start is not None) == (number <= longest_run(taken))
            if start is not None:
                assert start >= FIRST
                assert start + number <= FIRST + PAGES
                run = slice(start - FIRST, start - FIRST + number)
                assert not any(taken[run])
                taken[run] = [True] * number
                blocks.append((start, number))
        elif blocks:
            start, pages = blocks.pop(number % len(blocks))
            allocator.free(start, pages)
            taken[start - FIRST : start - FIRST + pages] = [False] * pages
        assert allocator.free_pages == taken.count(False)
        assert allocator.is_empty == (not blocks)
    for start, pages in blocks:
        allocator.free(start, pages)
    assert allocator.allocate(PAGES) == FIRST


def test_the_shortest_run_that_is_long_enough_is_used_and_of_those_the_first() -> None:
    allocator = PageAllocator(1, 20)
    starts = [allocator.allocate(pages) for pages in (4, 1, 2, 1, 2, 1)]
    assert starts == [1, 5, 6, 8, 9, 11]
    for start, pages in ((1, 4), (6, 2), (9, 2)):
        allocator.free(start, pages)
    assert [allocator.allocate(2) for _ in range(3)] == [6, 9, 1]
