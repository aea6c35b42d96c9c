"""Mappings that are used again: what they show, when they end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from comfy_airlock.memory import libc, spares
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.pagemap import PageMap
from comfy_airlock.memory.spares import Place, Spares
from comfy_airlock.wire.errors import Disconnected, LimitExceeded
from shared_memory import World, make_memfd, seal, two_processes

LARGE = np.arange(300_000, dtype="f4")


def mappings() -> int:
    """How many private mappings of segments there are."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum("/memfd:test-segment" in line and " rw-p " in line for line in lines)


def address_of(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


@pytest.fixture
def world() -> Iterator[World]:
    with two_processes() as made:
        yield made


def receive(world: World, value: np.ndarray = LARGE) -> np.ndarray:
    """What the far side gets; the near one has it all back before it sends the next."""
    world.far.tidy()
    arrived: np.ndarray = world.near.send([value])[0]
    return arrived


def test_a_mapping_that_was_not_written_to_is_used_again_and_shows_what_was_sent_since(world: World) -> None:
    first = receive(world)
    at = address_of(first)
    assert np.array_equal(first, LARGE)
    del first
    second = receive(world, LARGE * 2)
    assert address_of(second) == at
    assert np.array_equal(second, LARGE * 2)
    assert mappings() == 1


def test_one_that_was_written_to_is_not(world: World) -> None:
    first = receive(world)
    first[1000] = -1
    del first
    world.far.tidy()
    assert mappings() == 0
    assert np.array_equal(receive(world), LARGE)


def test_two_receipts_at_a_time_have_one_each(world: World) -> None:
    shared = world.near.memory.share(LARGE, None)
    del shared
    shared = world.near.memory.share(LARGE, None)
    one, two = world.near.send([shared])[0], world.near.send([shared])[0]
    assert address_of(one) != address_of(two)
    one[0] = -1
    assert int(two[0]) == 0
    del one, two
    # Of two that are left of the same pages one is enough; that of the sender is its own.
    world.far.tidy()
    assert mappings() == 2


def test_what_can_be_told_of_the_pages_of_one_by_nobody_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PageMap, "is_written", lambda *_: True)
    receive(world)
    world.far.tidy()
    assert mappings() == 0


def test_they_go_with_their_segment(world: World) -> None:
    receive(world)
    world.far.tidy()
    assert mappings() == 1
    (number,) = world.near.memory.heap.own
    world.far.memory.gone(number)
    assert mappings() == 0


def test_one_that_is_over_after_its_segment_is_not_kept(world: World) -> None:
    held = receive(world)
    (number,) = world.near.memory.heap.own
    world.far.memory.gone(number)
    assert mappings() == 1
    del held
    world.far.tidy()
    assert mappings() == 0


def test_they_go_with_their_connection_whichever_ends_first(world: World) -> None:
    receive(world)
    world.far.tidy()
    held = receive(world, np.tile(LARGE, 2))
    assert mappings() == 2
    world.far.memory.close()
    assert mappings() == 1
    del held
    world.far.tidy()
    assert mappings() == 0


def test_those_of_a_sender_go_with_its_segment(world: World) -> None:
    shared = world.near.memory.share(LARGE, None)
    del shared
    world.near.tidy()
    assert mappings() == 1
    world.near.memory.heap.retire_old()
    with world.near.memory.lock:
        world.near.memory.heap.retire_empty(0)
    world.near.tidy()
    assert mappings() == 0


def test_a_forked_child_has_none_and_gets_those_that_are_in_use(world: World) -> None:
    held = receive(world, LARGE * 3)
    receive(world, np.tile(LARGE, 2))
    world.far.tidy()
    assert mappings() == 2
    ends = os.pipe()
    child = os.fork()
    if not child:
        os.write(ends[1], bytes([mappings(), int(held[1])]))
        os._exit(0)
    os.waitpid(child, 0)
    assert [*os.read(ends[0], 2)] == [1, 3]
    for each in ends:
        os.close(each)


def test_one_that_is_used_again_is_in_a_forked_child(world: World) -> None:
    receive(world)
    again = receive(world, LARGE * 2)
    child = os.fork()
    if not child:
        os._exit(0 if float(again[1]) == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_there_are_only_so_many_and_the_least_recently_used_ones_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    del world
    monkeypatch.setattr(spares, "_SPARES_MAX", 2)
    descriptor = make_memfd(16 * PAGE_BYTES)
    kept = Spares(PageMap())
    places = [Place(1, page, 1) for page in range(3)]
    for place in places:
        kept.put(place, libc.map_private(descriptor, place.page * PAGE_BYTES, PAGE_BYTES))
    assert mappings() == 2
    assert kept.take(places[0]) is None
    last = kept.take(places[1])
    assert last is not None
    kept.put(places[1], last)
    kept.put(places[0], libc.map_private(descriptor, 0, PAGE_BYTES))
    assert kept.take(places[2]) is None
    assert kept.drop() == 2
    assert mappings() == 0
    monkeypatch.setattr(spares, "_SPARE_PAGES_MAX", 3)
    wide = Place(1, 0, 3)
    kept.put(places[0], libc.map_private(descriptor, 0, PAGE_BYTES))
    kept.put(wide, libc.map_private(descriptor, 0, 3 * PAGE_BYTES))
    assert kept.take(places[0]) is None
    kept.put(Place(1, 0, 4), libc.map_private(descriptor, 0, 4 * PAGE_BYTES))
    assert kept.drop() == 1
    assert mappings() == 0
    os.close(descriptor)


def test_they_are_given_up_where_there_can_be_no_mapping_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(world)
    world.far.tidy()
    real = libc.map_private

    def full(descriptor: int, offset: int, size: int) -> int:
        if mappings():
            raise OSError(12, "Cannot allocate memory")
        return real(descriptor, offset, size)

    monkeypatch.setattr(libc, "map_private", full)
    other = receive(world, np.tile(LARGE, 2))
    assert np.array_equal(other, np.tile(LARGE, 2))
    with pytest.raises(LimitExceeded, match="could not be mapped"):
        world.near.send([np.tile(LARGE, 4)])


@pytest.mark.parametrize("name", ["dont_fork", "do_fork"])
def test_one_that_the_kernel_cannot_tell_from_its_neighbours_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(_address: int, _size: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    held = receive(world)
    monkeypatch.setattr(libc, name, full)
    del held
    assert np.array_equal(receive(world, LARGE * 2), LARGE * 2)
    assert mappings() == 1


def test_one_that_was_written_to_by_whoever_locks_all_memory_is_not_used(world: World) -> None:
    first = receive(world)
    at = address_of(first)
    del first
    world.far.tidy()
    # As mlockall does: each page becomes the process's own, with what the owner had there.
    libc.populate(at, LARGE.nbytes)
    assert np.array_equal(receive(world, LARGE * 2), LARGE * 2)
    assert mappings() == 1


def test_what_cannot_be_unmapped_now_is_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_address: int, _size: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    for value in (LARGE, np.tile(LARGE, 2)):
        held = receive(world, value)
        held[0] = 7
        with monkeypatch.context() as patch:
            if value is LARGE:
                patch.setattr(libc, "unmap", full)
            del held
            world.far.tidy()
        assert mappings() == (1 if value is LARGE else 0)


def test_a_forked_child_ends_nothing_of_its_parents(world: World) -> None:
    held = receive(world)
    del held
    assert world.far.memory.ended
    child = os.fork()
    if not child:
        before = mappings()
        world.far.memory.settle()
        kept = world.far.memory.ended and mappings() == before
        try:
            world.far.memory.map([])
        except Disconnected:
            os._exit(0 if kept else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


class Receipts(RuleBasedStateMachine):
    """Any history of receipts of pages that their owner writes to, beside what each is to show."""

    PAGES = 6

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = make_memfd(self.PAGES * PAGE_BYTES)
        self.owner = np.frombuffer(
            libc.buffer_at(libc.map_shared(self.descriptor, self.PAGES * PAGE_BYTES), self.PAGES * PAGE_BYTES), "u1"
        ).reshape(self.PAGES, PAGE_BYTES)
        self.owner[:] = 0
        seal(self.descriptor)
        self.page_map = PageMap()
        self.spares = Spares(self.page_map)
        self.held: list[tuple[Place, int, np.ndarray, dict[int, int]]] = []

    @rule(page=st.integers(0, PAGES - 1), value=st.integers(0, 255))
    def the_owner_writes(self, page: int, value: int) -> None:
        self.owner[page] = value

    @rule(first=st.integers(0, PAGES - 1), pages=st.integers(1, 3))
    def one_comes(self, first: int, pages: int) -> None:
        place = Place(1, first, min(pages, self.PAGES - first))
        address = self.spares.take(place)
        if address is None:
            address = libc.map_private(self.descriptor, first * PAGE_BYTES, place.pages * PAGE_BYTES)
        array = np.frombuffer(libc.buffer_at(address, place.pages * PAGE_BYTES), "u1")
        assert all(other[1] != address for other in self.held)
        self.held.append((place, address, array.reshape(place.pages, PAGE_BYTES), {}))

    @rule(data=st.data(), value=st.integers(0, 255))
    def a_receiver_writes(self, data: st.DataObject, value: int) -> None:
        if self.held:
            _, _, array, written = data.draw(st.sampled_from(self.held))
            page = data.draw(st.integers(0, len(array) - 1))
            array[page] = value
            written[page] = value

    @rule(data=st.data())
    def one_is_over(self, data: st.DataObject) -> None:
        if self.held:
            place, address, _, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.spares.put(place, address)

    @invariant()
    def each_shows_what_is_its_own_and_else_what_the_owner_has(self) -> None:
        for place, _, array, written in self.held:
            for page in range(place.pages):
                assert array[page, 7] == written.get(page, self.owner[place.page + page, 7])

    def teardown(self) -> None:
        for place, address, _, _ in self.held:
            self.spares.put(place, address)
        self.spares.drop()
        assert mappings() == 0
        libc.unmap(address_of(self.owner), self.PAGES * PAGE_BYTES)
        os.close(self.descriptor)
        self.page_map.close()


def test_any_history_of_receipts_shows_what_new_mappings_would() -> None:
    run_state_machine_as_test(Receipts, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))


def test_no_mapping_is_left() -> None:
    assert "/memfd:test-segment" not in Path("/proc/self/maps").read_text()
