"""The library that torch's allocator is led to, without torch: against a model, in forks, and where it has no place."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from comfy_airlock.memory import libc
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.nursery import bind
from nursery_library import nursery_library
from shared_memory import make_memfd, seal

MIB = 1 << 20
SIZES = (MIB, MIB + PAGE_BYTES, 3 * MIB)
NOT_TAKEN, HELD, HELD_PRIVATE = range(3)
IN_USE, WITHDRAWN, WITHDRAWN_SPENT = range(3)


class Library:
    """What libc10 calls of it, and what the nursery does."""

    def __init__(self) -> None:
        self.calls = bind(nursery_library())
        self._memalign, self._free = self.calls.nursery_memalign, self.calls.nursery_free
        self._memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
        self._free.argtypes = [ctypes.c_void_p]
        self._free.restype = None

    def allocate(self, size: int, alignment: int = 64) -> int:
        made = ctypes.c_void_p()
        assert self._memalign(ctypes.byref(made), alignment, size) == 0
        assert made.value is not None
        return made.value

    def free(self, address: int) -> None:
        self._free(address)


class Segment:
    """One block behind a page, as the owner of a sealed segment has it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.descriptor = make_memfd(size + PAGE_BYTES)
        self._mapped = libc.map_shared(self.descriptor, size + PAGE_BYTES)
        libc.dont_fork(self._mapped, size + PAGE_BYTES)
        seal(self.descriptor)
        self.address = self._mapped + PAGE_BYTES

    def seen(self) -> bytes:
        """What others see of it: its first byte, and its last."""
        return os.pread(self.descriptor, 1, PAGE_BYTES) + os.pread(self.descriptor, 1, self.size + PAGE_BYTES - 1)

    def offer(self, library: Library) -> None:
        assert library.calls.nursery_offer(self.address, self.size, self.descriptor, PAGE_BYTES)

    def close(self) -> None:
        libc.unmap(self._mapped, self.size + PAGE_BYTES)
        os.close(self.descriptor)


def write(address: int, size: int, value: int) -> None:
    for at in (0, size - 1):
        ctypes.c_ubyte.from_address(address + at).value = value


def read(address: int, size: int) -> bytes:
    return libc.bytes_at(address, 1) + libc.bytes_at(address + size - 1, 1)


@pytest.fixture
def library() -> Library:
    return Library()


@contextmanager
def offered(library: Library, size: int = MIB) -> Generator[Segment]:
    segment = Segment(size)
    segment.offer(library)
    try:
        yield segment
    finally:
        assert library.calls.nursery_withdraw(segment.address, False) != IN_USE
        segment.close()


# What it promises.


def test_what_is_made_in_a_block_is_leased_as_it_is_and_may_go_on_being_written_to(library: Library) -> None:
    with offered(library) as segment:
        made = library.allocate(MIB)
        assert made == segment.address
        write(made, MIB, 1)
        assert library.calls.nursery_hold(made) == HELD
        assert library.calls.nursery_lease(made)
        write(made, MIB, 2)
        assert read(made, MIB) == b"\2\2"
        assert segment.seen() == b"\1\1"
        assert library.calls.nursery_hold(made) == HELD_PRIVATE
        library.calls.nursery_let_go(made)
        library.free(made)
        assert segment.seen() == b"\1\1"
        # Leased, it is nobody's to take.
        other = library.allocate(MIB)
        assert other != made
        library.free(other)
        library.calls.nursery_let_go(made)
        # Then it is, and what is written there is seen by others.
        assert library.allocate(MIB) == made
        write(made, MIB, 3)
        assert segment.seen() == b"\3\3"
        library.free(made)


def test_what_nobody_looks_at_any_more_stays_as_long_as_it_is_held(library: Library) -> None:
    with offered(library) as segment:
        made = library.allocate(MIB)
        write(made, MIB, 1)
        assert library.calls.nursery_hold(made) == HELD
        library.free(made)
        other = library.allocate(MIB)
        assert other != made
        library.free(other)
        assert library.calls.nursery_lease(made)
        assert library.calls.nursery_withdraw(made, False) == IN_USE
        assert library.calls.nursery_hold(made) == NOT_TAKEN
        assert segment.seen() == b"\1\1"
        library.calls.nursery_let_go(made)


@pytest.mark.parametrize("size", [64, MIB - 1, MIB + 1, 2 * MIB])
def test_other_sizes_and_alignments_are_libcs(library: Library, size: int) -> None:
    with offered(library) as segment:
        at = [library.allocate(size), library.allocate(MIB, alignment=2 * MIB)]
        assert segment.address not in at
        assert at[1] % (2 * MIB) == 0
        for each in at:
            library.free(each)


def test_a_tensor_that_ends_within_the_last_page_of_a_block_fits(library: Library) -> None:
    with offered(library, 3 * MIB) as segment:
        assert library.allocate(3 * MIB - 100) == segment.address
        library.free(segment.address)


def test_nothing_is_freed_by_freeing_nothing(library: Library) -> None:
    library.free(0)


def test_what_was_used_is_spared_until_it_rests(library: Library) -> None:
    with offered(library) as segment:
        withdraw = library.calls.nursery_withdraw
        library.free(library.allocate(MIB))
        assert withdraw(segment.address, True) == IN_USE
        library.calls.nursery_let_rest(segment.address)
        assert withdraw(segment.address, True) == WITHDRAWN
        segment.offer(library)


def test_there_is_an_end_to_what_it_knows(library: Library) -> None:
    segment = Segment(MIB)
    offer = library.calls.nursery_offer
    known = [at for at in range(1, 400) if offer(at * PAGE_BYTES, 1 << 40, segment.descriptor, 0)]
    assert len(known) == 256
    for at in known:
        assert library.calls.nursery_withdraw(at * PAGE_BYTES, False) == WITHDRAWN
    segment.close()


def test_it_goes_where_a_library_calls_for_memory_and_nowhere_else(library: Library) -> None:
    assert not library.calls.nursery_attach(b"/no-such-library.so")
    # It is loaded, and calls neither.
    assert not library.calls.nursery_attach(b"linux-vdso.so.1")


# Forks.


def forked(child: Callable[[], int]) -> int:
    """A forked child that runs this, and ends with what it returns."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = child()
        finally:
            os._exit(code)
    return pid


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_fork(child: Callable[[], int]) -> int:
    """The exit code of a forked child that runs this."""
    return code_of(forked(child))


@pytest.mark.parametrize("is_leased", [False, True])
def test_a_forked_child_has_what_there_was_and_neither_sees_what_the_other_writes(
    library: Library, is_leased: bool
) -> None:
    with offered(library) as segment:
        made = library.allocate(MIB)
        write(made, MIB, 1)
        if is_leased:
            library.calls.nursery_hold(made)
            library.calls.nursery_lease(made)
        gone_in, gone_out = os.pipe()

        def child() -> int:
            os.close(gone_out)
            # Until the parent has written, and ended what it had.
            os.read(gone_in, 1)
            if read(made, MIB) != b"\1\1":
                return 1
            write(made, MIB, 2)
            if read(made, MIB) != b"\2\2":
                return 2
            library.free(made)
            return 0 if library.allocate(MIB) != made else 3

        pid = forked(child)
        os.close(gone_in)
        write(made, MIB, 3)
        assert read(made, MIB) == b"\3\3"
        library.free(made)
        if is_leased:
            library.calls.nursery_let_go(made)
        # It is never used again, as the child may look at it.
        again = library.allocate(MIB)
        assert again != made
        write(again, MIB, 4)
        library.free(again)
        assert segment.seen() == b"\1\1"
        os.close(gone_out)
        assert code_of(pid) == 0
        assert segment.seen() == b"\1\1"
        # Nothing else comes to lie there as long as it is known.
        assert is_mapped(made)
        assert library.calls.nursery_withdraw(made, False) == WITHDRAWN_SPENT
        assert not is_mapped(made)
        segment.offer(library)


def test_a_forked_child_has_none_of_what_was_free(library: Library) -> None:
    with offered(library) as segment:
        write(segment.address, MIB, 1)

        def child() -> int:
            made = library.allocate(MIB)
            return int(made == segment.address)

        assert in_fork(child) == 0
        assert library.allocate(MIB) == segment.address
        library.free(segment.address)


def test_threads_write_on_while_their_process_forks(library: Library) -> None:
    """No write is lost where a mapping takes another's place."""
    with offered(library) as segment:
        made = library.allocate(MIB)
        counter = ctypes.c_uint64.from_address(made)
        counter.value = 0
        is_over = threading.Event()

        def count() -> int:
            counted = 0
            while not is_over.is_set():
                counter.value += 1
                counted += 1
            return counted

        counted: list[int] = []
        thread = threading.Thread(target=lambda: counted.append(count()))
        thread.start()
        for _ in range(20):
            assert in_fork(lambda: 0) == 0
        is_over.set()
        thread.join()
        assert counter.value == counted[0]
        library.free(made)
        assert library.calls.nursery_withdraw(made, False) == WITHDRAWN_SPENT
        segment.offer(library)


# What is left when its segment goes.


@pytest.mark.parametrize("is_held", [False, True])
def test_what_is_abandoned_stays_until_it_is_freed(library: Library, is_held: bool) -> None:
    segment = Segment(MIB)
    segment.offer(library)
    made = library.allocate(MIB)
    write(made, MIB, 1)
    if is_held:
        library.calls.nursery_hold(made)
    library.calls.nursery_abandon(made)
    os.close(segment.descriptor)
    assert read(made, MIB) == b"\1\1"
    write(made, MIB, 2)
    library.free(made)
    if is_held:
        assert read(made, MIB) == b"\2\2"
        library.calls.nursery_let_go(made)
    assert not is_mapped(made)
    libc.unmap(made - PAGE_BYTES, PAGE_BYTES)


def test_what_is_abandoned_and_nobodys_goes_at_once(library: Library) -> None:
    segment = Segment(MIB)
    segment.offer(library)
    library.calls.nursery_abandon(segment.address)
    assert not is_mapped(segment.address)
    segment.close()


def is_mapped(address: int) -> bool:
    with open("/proc/self/maps") as maps:
        ranges = [line.split()[0].split("-") for line in maps]
    return any(int(low, 16) <= address < int(high, 16) for low, high in ranges)


# Any history.


class Block:
    """What the model knows of one."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.is_taken = False
        #: What whoever has it has written, and what its segment had when it was leased.
        self.local = 0
        self.leased: int | None = None
        self.holds = 0


class Histories(RuleBasedStateMachine):
    """Offers, allocations, leases and ends, in any order: whoever looks at a block sees what they should."""

    def __init__(self) -> None:
        super().__init__()
        self.library = Library()
        self.calls = self.library.calls
        self.blocks: dict[int, Block] = {}
        self.elsewhere: dict[int, tuple[int, int]] = {}
        self.value = 0

    def next_value(self) -> int:
        self.value = self.value % 255 + 1
        return self.value

    @precondition(lambda self: len(self.blocks) < 4)
    @rule(size=st.sampled_from(SIZES))
    def offer(self, size: int) -> None:
        segment = Segment(size)
        segment.offer(self.library)
        self.blocks[segment.address] = Block(segment)

    @precondition(lambda self: len(self.elsewhere) < 4)
    @rule(size=st.sampled_from(SIZES))
    def allocate(self, size: int) -> None:
        free = {
            at
            for at, block in self.blocks.items()
            if not block.is_taken and not block.holds and block.segment.size == size
        }
        made = self.library.allocate(size)
        assert made not in self.elsewhere
        if free:
            assert made in free
            self.blocks[made].is_taken = True
            self.blocks[made].local = self.next_value()
            write(made, size, self.value)
        else:
            assert made not in self.blocks
            self.elsewhere[made] = size, self.next_value()
            write(made, size, self.value)

    def pick(self, data: st.DataObject, which: Any) -> tuple[int, Block] | None:
        found = [at for at, block in self.blocks.items() if which(block)]
        if not found:
            return None
        at = data.draw(st.sampled_from(found))
        return at, self.blocks[at]

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        picked = self.pick(data, lambda block: block.is_taken)
        if picked is not None:
            picked[1].local = self.next_value()
            write(picked[0], picked[1].segment.size, self.value)

    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        picked = self.pick(data, lambda block: block.is_taken)
        if picked is not None:
            self.library.free(picked[0])
            picked[1].is_taken = False
            self.let_go_if_free(picked[1])

    @precondition(lambda self: self.elsewhere)
    @rule(data=st.data())
    def free_elsewhere(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.elsewhere)))
        del self.elsewhere[at]
        self.library.free(at)

    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        picked = self.pick(data, lambda _: True)
        if picked is None:
            return
        at, block = picked
        held = self.calls.nursery_hold(at)
        assert bool(held) == block.is_taken
        if held:
            assert (held == HELD_PRIVATE) == (block.leased is not None)
            assert self.calls.nursery_lease(at)
            block.holds += 1
            if block.leased is None:
                block.leased = block.local

    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        picked = self.pick(data, lambda block: block.holds)
        if picked is not None:
            self.calls.nursery_let_go(picked[0])
            picked[1].holds -= 1
            self.let_go_if_free(picked[1])

    @staticmethod
    def let_go_if_free(block: Block) -> None:
        if not block.is_taken and not block.holds:
            block.leased = None

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        picked = self.pick(data, lambda _: True)
        if picked is None:
            return
        at, block = picked
        may = not block.is_taken and not block.holds
        assert self.calls.nursery_withdraw(at, False) == (WITHDRAWN if may else IN_USE)
        if may:
            del self.blocks[at]
            block.segment.close()

    @rule()
    def fork(self) -> None:
        """A child that does nothing: what is taken now is never used again."""
        spent = [at for at, block in self.blocks.items() if block.is_taken]
        if not spent:
            assert in_fork(lambda: 0) == 0

    @invariant()
    def all_is_seen_as_it_was_written(self) -> None:
        for at, (size, value) in self.elsewhere.items():
            assert read(at, size) == bytes([value] * 2)
        for at, block in self.blocks.items():
            if block.is_taken:
                assert read(at, block.segment.size) == bytes([block.local] * 2)
                if block.leased is None:
                    assert block.segment.seen() == bytes([block.local] * 2)
            if block.leased is not None:
                assert block.segment.seen() == bytes([block.leased] * 2)

    def teardown(self) -> None:
        for at in self.elsewhere:
            self.library.free(at)
        for at, block in self.blocks.items():
            if block.is_taken:
                self.library.free(at)
            for _ in range(block.holds):
                self.calls.nursery_let_go(at)
            assert self.calls.nursery_withdraw(at, False) == WITHDRAWN
            block.segment.close()


def test_any_history_shows_everybody_what_is_theirs() -> None:
    nursery_library()
    run_state_machine_as_test(Histories, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
