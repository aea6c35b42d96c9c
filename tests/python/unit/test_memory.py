"""What keeps memory, and when it goes: blocks, arenas, segments, leases between two processes."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfy_airlock.memory import heap as heap_module
from comfy_airlock.memory import libc, segments
from comfy_airlock.memory.arena import Arena
from comfy_airlock.memory.blocks import Dropped, EndedHolds, Freed, HeldBlock, OwnBlock, Unviewed
from comfy_airlock.memory.ledger import BlockKey
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.mappings import map_blocks
from comfy_airlock.memory.pagemap import PageMap
from comfy_airlock.memory.room import Room, memory_room
from comfy_airlock.memory.segments import OwnSegment, pages_with_header
from comfy_airlock.memory.spares import Place, Spares
from comfy_airlock.wire.errors import AirlockError, LeaseGone, LimitExceeded, ProtocolError, ValueUnsupported
from comfy_airlock.wire.frame import ATTACHMENT
from shared_memory import World, make_memfd, two_processes

MiB = 1 << 20
LARGE = np.arange(300_000, dtype="f4")


class FakeSegment:
    """As much of one as blocks ask for."""

    def __init__(self) -> None:
        self.number = 4
        self.address = 1 << 20
        self.generation = 7

    def generation_at(self, page: int) -> int:
        if self.generation < 0:
            raise OSError(9, "closed")
        return self.generation


class FakeLeases:
    life = 3


# What ends, and who hears of it.


def test_holds_that_end_are_queued_and_one_wakes_for_all_until_they_are_taken() -> None:
    woken: list[int] = []
    ended = EndedHolds(lambda: woken.append(len(woken)))
    fake: Any = FakeSegment()
    blocks = [OwnBlock(fake, page, 2, 9, ended) for page in (1, 3)]
    assert blocks[0].address == fake.address + PAGE_BYTES
    assert blocks[1].key == BlockKey(4, 3, 9)
    assert not ended
    blocks.clear()
    assert woken == [0]
    assert sorted(ended.take()) == [Freed(fake, 1, 2), Freed(fake, 3, 2)]
    assert not ended
    OwnBlock(fake, 1, 1, 9, ended)
    assert woken == [0, 1]


def test_a_forked_childs_copies_of_holds_end_nothing() -> None:
    woken: list[int] = []
    ended = EndedHolds(lambda: woken.append(0))
    ended.put(Unviewed(0, Place(1, 2, 3)), lambda: os.getpid() + 1)
    assert not ended
    assert not woken


def test_a_held_block_is_stale_once_its_owner_has_freed_it_and_tells_whose_lease_it_was() -> None:
    ended = EndedHolds(lambda: None)
    fake: Any = FakeSegment()
    leases: Any = FakeLeases()
    block = HeldBlock(leases, fake, BlockKey(4, 6, 7), 2, ended)
    assert not block.is_stale
    fake.generation = 8
    assert block.is_stale
    fake.generation = -1
    assert block.is_stale
    # It is the process that gave it that is meant, whoever is there when it ends.
    leases.life = 4
    del block
    assert [*ended.take()] == [Dropped(leases, 3, BlockKey(4, 6, 7), 2, fake)]


def test_finalizers_may_run_in_many_threads_while_holds_are_taken() -> None:
    ended = EndedHolds(lambda: None)
    fake: Any = FakeSegment()
    taken: list[Any] = []

    def end_many() -> None:
        for page in range(2000):
            OwnBlock(fake, page, 1, 1, ended)

    threads = [threading.Thread(target=end_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += ended.take()
    taken += ended.take()
    assert len(taken) == 8000


# Segments.


@pytest.fixture
def own() -> Iterator[list[OwnSegment]]:
    made: list[OwnSegment] = []
    yield made
    for each in made:
        each.release()


def segment_of(own: list[OwnSegment], pages: int, number: int = 1, *, is_whole: bool = False) -> OwnSegment:
    made = OwnSegment(number, make_memfd(pages * PAGE_BYTES), is_whole=is_whole)
    own.append(made)
    return made


@pytest.mark.parametrize("pages", [1, 2, 1022, 1023, 1024, 1025, 2046, 2047, 5000])
def test_generations_of_all_blocks_lie_before_the_first_block(own: list[OwnSegment], pages: int) -> None:
    segment = segment_of(own, pages_with_header(pages))
    assert segment.free_pages >= pages
    allocated = segment.allocate(pages)
    assert allocated is not None
    first, generation = allocated
    assert 4 * segment.pages <= first * PAGE_BYTES
    assert segment.generation_at(first) == generation > 0
    segment.free(first, pages)
    assert segment.generation_at(first) == 0
    assert segment.is_empty


def test_a_block_that_is_allocated_again_has_another_generation(own: list[OwnSegment]) -> None:
    segment = segment_of(own, 3, is_whole=True)
    seen = set()
    for _ in range(5):
        page, generation = segment.allocate(2) or (0, 0)
        assert page == 1
        seen.add(generation)
        segment.free(page, 2)
    assert len(seen) == 5


def test_a_segment_that_there_is_no_memory_for_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> None:
        raise OSError(28, "No space left on device")

    for where, name in ((os, "posix_fallocate"), (libc, "map_shared"), (libc, "populate")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fail)
            with pytest.raises(LimitExceeded, match="8192 bytes of shared memory could not be had: No space left"):
                OwnSegment(1, make_memfd(2 * PAGE_BYTES), is_whole=True)
    # What is left open fails this test when it ends.


# Arenas.


def arena_with(own: list[OwnSegment], arena: Arena, pages: int) -> OwnBlock:
    """A block, in a segment that is made for it if need be; without the pages of its segment being touched."""
    block = arena.allocate(pages)
    if block is None:
        segment = segment_of(own, arena.segment_pages_for(pages), len(own) + 1, is_whole=arena.is_whole(pages))
        arena.add(segment, pages)
        block = arena.allocate(pages)
    assert block is not None
    return block


@pytest.fixture
def ended() -> EndedHolds:
    return EndedHolds(lambda: None)


@pytest.fixture(autouse=True)
def _no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of many MiB cost nothing here but what is written to."""
    monkeypatch.setattr(libc, "populate", lambda *_: None)
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)


def settle(ended: EndedHolds) -> None:
    for each in ended.take():
        assert isinstance(each, Freed)
        each.segment.free(each.page, each.pages)


def test_blocks_share_segments_with_blocks_of_their_size(own: list[OwnSegment], ended: EndedHolds) -> None:
    arena = Arena(ended)
    mib = MiB // PAGE_BYTES
    sizes = [1, mib, mib + 1, 32 * mib, 32 * mib + 1]
    blocks = [arena_with(own, arena, pages) for pages in sizes]
    assert [block.segment.number for block in blocks] == [1, 1, 2, 2, 3]
    assert [segment.is_whole for segment in arena.segments] == [False, False, True]
    # Sixteen of the largest small ones have room in one, two of the largest medium ones in another.
    assert arena.allocate(32 * mib) is None
    more = [arena.allocate(mib) for _ in range(15)]
    assert more.count(None) == 1
    assert blocks[4].page == 1


def test_a_whole_segment_is_used_again_by_what_nearly_fills_it(own: list[OwnSegment], ended: EndedHolds) -> None:
    arena = Arena(ended)
    mib = MiB // PAGE_BYTES
    block = arena_with(own, arena, 40 * mib)
    assert arena.allocate(40 * mib) is None
    del block
    settle(ended)
    assert arena.allocate(41 * mib) is None
    assert arena.allocate(33 * mib) is not None
    settle(ended)
    large = arena_with(own, arena, 100 * mib)
    del large
    settle(ended)
    # The smaller of two that would do; not the larger one, which would be wasted.
    again = arena.allocate(39 * mib)
    assert again is not None
    assert again.segment is own[0]
    assert arena.allocate(83 * mib) is None
    assert arena.allocate(84 * mib) is not None


def test_a_segment_that_was_removed_is_used_no_more(own: list[OwnSegment], ended: EndedHolds) -> None:
    arena = Arena(ended)
    block = arena_with(own, arena, 1)
    del block
    settle(ended)
    arena.remove(own[0])
    assert arena.segments == []
    assert arena.allocate(1) is None


# Which pages were written to.


@pytest.mark.parametrize("can_scan", [True, False], ids=["by scan", "by page map"])
def test_one_byte_written_to_a_private_mapping_is_seen(can_scan: bool) -> None:
    descriptor = make_memfd(64 * PAGE_BYTES)
    page_map = PageMap()
    page_map._can_scan = can_scan
    address = libc.map_private(descriptor, 0, 64 * PAGE_BYTES)
    try:
        assert not page_map.is_written(address, 64 * PAGE_BYTES)
        assert libc.bytes_at(address, 64 * PAGE_BYTES) == bytes(64 * PAGE_BYTES)
        assert not page_map.is_written(address, 64 * PAGE_BYTES)
        libc.write_u32(address + 40 * PAGE_BYTES - 4, 1)
        assert page_map.is_written(address, 64 * PAGE_BYTES)
        assert page_map.is_written(address + 39 * PAGE_BYTES + 17, 5)
        assert not page_map.is_written(address, 39 * PAGE_BYTES)
        assert not page_map.is_written(address + 40 * PAGE_BYTES, 24 * PAGE_BYTES)
    finally:
        libc.unmap(address, 64 * PAGE_BYTES)
        os.close(descriptor)
        page_map.close()
    # Where nobody can tell, it may have been.
    assert page_map.is_written(address, PAGE_BYTES)


def test_page_map_does_without_what_the_kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(25, "no such ioctl")

    monkeypatch.setattr("fcntl.ioctl", refuse)
    page_map = PageMap()
    buffer = bytearray(1)
    assert page_map.is_written(libc.address_of(buffer), 1)
    assert not page_map._can_scan
    page_map.close()


# Room.


def test_room_is_the_least_of_the_machines_and_of_all_cgroups_around() -> None:
    gib = 1 << 30
    files = {
        "/proc/meminfo": f"MemTotal: {16 * gib // 1024} kB\nMemAvailable: {8 * gib // 1024} kB\n",
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup/a/b/memory.max": "max\n",
        "/sys/fs/cgroup/a/b/memory.current": "1\n",
        "/sys/fs/cgroup/a/memory.max": f"{4 * gib}\n",
        "/sys/fs/cgroup/a/memory.current": f"{3 * gib}\n",
        "/sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {gib}\n",
    }
    assert memory_room(files.get) == Room(2 * gib - 256 * MiB, "the cgroup /sys/fs/cgroup/a")
    del files["/sys/fs/cgroup/a/memory.max"]
    assert memory_room(files.get) == Room(8 * gib - 256 * MiB, "the machine")
    assert memory_room({}.get) is None


# Two processes.


@pytest.fixture
def world() -> Iterator[World]:
    with two_processes() as world:
        yield world
    gc.collect()


def test_what_arrives_is_leased_until_nobody_looks_at_it(world: World) -> None:
    near, far = world.near, world.far
    arrived = near.send([LARGE])
    assert np.array_equal(arrived[0], LARGE)
    assert near.memory.report()["leases_given"] == 1
    assert far.memory.report()["leases_held"] == 1
    part = arrived[0][5:7]
    del arrived
    far.tidy()
    assert near.memory.report()["leases_given"] == 1
    del part
    far.tidy()
    report = near.memory.report()
    assert (report["leases_given"], report["used_bytes"] - header_bytes(near)) == (0, 0)
    assert report["segments"] == 1  # Warm, for the next.


def header_bytes(peer: Any) -> int:
    own = peer.memory.heap.own.values()
    return sum(segment.size - segment._allocator._all * PAGE_BYTES for segment in own)


def test_what_is_written_to_is_seen_by_nobody_else(world: World) -> None:
    array = LARGE.copy()
    (first,) = world.near.send([array])
    (second,) = world.near.send([array])
    first[:] = 1
    array[:] = 2
    assert second.sum() == LARGE.sum()


def test_what_was_not_written_to_goes_on_without_a_copy_and_home_the_same_way(world: World) -> None:
    near, far = world.near, world.far
    (there,) = near.send([LARGE])
    (home,) = far.send([there])
    assert far.memory.report()["copied_bytes"] == 0
    assert far.memory.report()["forwarded_bytes"] == LARGE.nbytes
    assert np.array_equal(home, LARGE)
    # A block that came home is leased by nobody for that.
    near.memory.tidy()
    assert far.memory.report()["leases_given"] == 0
    del there
    far.tidy()
    assert near.memory.report()["leases_given"] == 0
    assert np.array_equal(home, LARGE)
    (again,) = near.send([home])
    assert near.memory.report()["copied_bytes"] == LARGE.nbytes
    assert np.array_equal(again, LARGE)
    again[0] = 5
    far.send([again])
    assert far.memory.report()["copied_bytes"] == LARGE.nbytes


def test_a_block_that_is_received_twice_is_one_lease_with_mappings_of_their_own(world: World) -> None:
    near, far = world.near, world.far
    shared = near.memory.share(LARGE, None)
    (first,), (second,) = near.send([shared]), near.send([shared])
    assert far.memory.report()["leases_held"] == 1
    first[:] = 0
    assert np.array_equal(second, LARGE)
    del first
    far.tidy()
    assert near.memory.report()["leases_given"] == 1
    del second
    far.tidy()
    assert near.memory.report()["leases_given"] == 0
    assert near.memory.report()["copied_bytes"] == 0


def test_a_message_that_is_not_sent_takes_its_leases_back(world: World) -> None:
    _, packed = world.near.encode([LARGE])
    assert world.near.memory.report()["leases_given"] == 1
    packed.take_back()
    assert world.near.memory.report()["leases_given"] == 0
    with pytest.raises(ValueUnsupported):
        world.near.encode([LARGE, object()])
    world.near.encode([1])
    assert world.near.memory.report()["leases_given"] == 0
    assert world.near.arrays.noted == {}


def test_a_message_that_nobody_decodes_is_returned_when_it_is_garbage(world: World) -> None:
    body, packed = world.near.encode([LARGE])
    blocks = world.far.leases.receive(packed.attachments, is_direct=True)
    world.far.tidy()
    assert world.near.memory.report()["leases_given"] == 1
    del blocks, body
    world.far.tidy()
    assert world.near.memory.report()["leases_given"] == 0


def test_what_was_taken_back_is_an_error_and_no_other_tensors_elements(world: World) -> None:
    body, packed = world.near.encode([LARGE])
    packed.take_back()
    world.near.memory.settle()
    with pytest.raises(LeaseGone, match="taken back by its owner"):
        world.far.decode(body, packed.attachments)
    # Another tensor in its place is not taken for it.
    world.near.encode([LARGE + 1])
    with pytest.raises(LeaseGone):
        world.far.decode(body, packed.attachments)


@pytest.mark.parametrize(("page", "pages"), [(0, 1 << 31), (4096, 1 << 20), (1, 0)])
def test_pages_outside_a_segment_break_the_protocol(world: World, page: int, pages: int) -> None:
    world.near.send([LARGE])
    _, packed = world.near.encode([LARGE])
    number, _, _, generation = ATTACHMENT.unpack(packed.attachments)
    with pytest.raises(ProtocolError, match="were named, which has"):
        world.far.leases.receive(ATTACHMENT.pack(number, page, pages, generation), is_direct=True)


def test_a_segment_that_was_not_given_breaks_the_protocol_on_a_line_and_fails_its_call_on_the_relay(
    world: World,
) -> None:
    named = ATTACHMENT.pack(77, 1, 1, 1)
    with pytest.raises(ProtocolError, match="segment 77 was named"):
        world.far.leases.receive(named, is_direct=True)
    blocks = world.far.leases.receive(named, is_direct=False)
    with pytest.raises(AirlockError, match="segment 77 was named"):
        world.far.memory.map(blocks)


def test_a_lease_that_cannot_be_taken_for_want_of_descriptors_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, packed = world.near.encode([LARGE])
    packed.settled()

    def full(*_: int) -> None:
        raise LimitExceeded("this process cannot open any more descriptors")

    monkeypatch.setattr(world.far.lane, "find", full)
    with pytest.raises(LimitExceeded, match="descriptors"):
        world.far.decode(body, packed.attachments)
    world.far.tidy()
    assert world.near.memory.report()["leases_given"] == 0


def test_a_lease_that_cannot_be_mapped_is_an_error_and_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> int:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(libc, "map_private", full)
        with pytest.raises(LimitExceeded, match="could not be mapped: Cannot allocate memory"):
            world.near.send([LARGE])
    world.far.tidy()
    assert world.near.memory.report()["leases_given"] == 0
    assert np.array_equal(world.near.send([LARGE])[0], LARGE)


def test_where_some_blocks_of_a_message_cannot_be_mapped_nothing_else_is_unmapped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = world.near, world.far
    (before,) = near.send([LARGE])
    map_private, left = libc.map_private, [1]

    def full_after_one(*parts: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(12, "Cannot allocate memory")
        return map_private(*parts)

    # Of two sizes, so in two segments, which are mapped one after the other.
    sent = [np.ones(5 * MiB, "u1"), np.ones(40 * MiB, "u1")]
    with monkeypatch.context() as patch:
        patch.setattr(libc, "map_private", full_after_one)
        with pytest.raises(LimitExceeded, match="could not be mapped"):
            near.send(sent)
    far.tidy()
    # What came before is known as what it is: it goes home without a copy.
    copied = far.memory.report()["copied_bytes"]
    assert np.array_equal(far.send([before])[0], LARGE)
    assert far.memory.report()["copied_bytes"] == copied


def test_who_needs_a_segment_has_it_though_others_look_for_room_just_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, pages = world.near.memory, 40 * MiB // PAGE_BYTES
    taken: list[object] = []
    lock = memory.lock

    class Contended:
        """A lock that somebody else has as soon as it is free."""

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if memory.heap.own and not taken:
                taken.append(None)
                taken.append(memory.heap._allocate(pages, None))

    monkeypatch.setattr(memory, "lock", Contended())
    block = memory.heap.allocate(40 * MiB, None)
    assert block.pages == pages
    assert taken == [None, None]


def test_who_may_not_be_given_a_segment_is_sent_a_copy(world: World) -> None:
    world.refuses_to_share = True
    (arrived,) = world.near.send([LARGE])
    assert np.array_equal(arrived, LARGE)
    assert world.near.memory.report()["leases_given"] == 0
    settle_all(world)
    assert world.near.memory.report()["used_bytes"] == header_bytes(world.near)


def settle_all(world: World) -> None:
    """What is garbage at either side is returned, and what that frees is given up."""
    for peer in (world.near, world.far, world.near, world.far):
        peer.tidy()


def test_the_limit_is_told_with_who_holds_what(world: World) -> None:
    world.bytes_max = 70 * MiB
    kept = world.near.send([np.zeros(15 * MiB, "u1")])
    with pytest.raises(LimitExceeded) as caught:
        world.near.encode([np.zeros(60 * MiB, "u1")])
    message = str(caught.value)
    assert "there is no memory for a tensor of 62914560 bytes" in message
    assert f"near holds {15 * MiB} bytes in 1 leases" in message
    assert kept[0].nbytes == 15 * MiB
    # And all goes on.
    assert np.array_equal(world.near.send([LARGE])[0], LARGE)


def test_a_receiver_with_garbage_in_cycles_gives_back_when_memory_is_short(world: World) -> None:
    world.bytes_max = 110 * MiB
    gc.disable()
    try:
        cycle: list[Any] = [world.near.send([np.ones(60 * MiB, "u1")])]
        cycle.append(cycle)
        del cycle
        (arrived,) = world.near.send([np.full(70 * MiB, 3, "u1")])
    finally:
        gc.enable()
    assert int(arrived[-1]) == 3
    assert world.near.memory.report()["segments"] == 1


def test_a_receiver_looks_for_garbage_in_no_more_than_a_quarter_of_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    began: list[float] = []

    def collect() -> None:
        nonlocal now
        began.append(now)
        now += 0.1

    monkeypatch.setattr("gc.collect", collect)
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(16):
        world.far.memory.reclaimed()
        world.far.memory.tidy()
        now += 0.05
    assert began == [pytest.approx(100.0), pytest.approx(100.4), pytest.approx(100.8)]


def test_memory_that_the_machine_lacks_is_not_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap_module, "memory_room", lambda: Room(MiB, "the cgroup of this test"))
    with pytest.raises(LimitExceeded, match="the cgroup of this test has 1048576 to give"):
        world.near.encode([LARGE])
    assert world.near.asked == []


def test_where_no_segment_for_many_blocks_fits_one_for_this_block_alone_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heap_module, "memory_room", lambda: Room(4 * MiB, "the cgroup of this test"))
    array = np.ones(2 * MiB, "u1")
    for _ in range(2):
        (arrived,) = world.near.send([array])
        assert np.array_equal(arrived, array)
        del arrived
        world.far.tidy()
    # Used again by what fits as well.
    report = world.near.memory.report()
    assert (report["segments"], report["segment_bytes"]) == (1, 2 * MiB + PAGE_BYTES)


def test_idle_segments_beyond_the_mark_are_given_up(world: World) -> None:
    near, far = world.near, world.far
    near.memory.heap._idle_bytes_max = 100 * MiB
    for _ in range(2):
        arrived = near.send([np.zeros(40 * MiB, "u1")])
        kept = near.send([np.zeros(70 * MiB, "u1")])
        del arrived, kept
        settle_all(world)
        assert (near.memory.report()["segments"], world.count) == (1, 1)
        assert near.memory.report()["segment_bytes"] <= 100 * MiB
    assert not far.memory._given or len(far.memory._given) == 1


def test_segments_that_nothing_was_in_for_long_are_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    near = world.near
    first, other = near.send([np.zeros(70 * MiB, "u1")]), near.send([np.zeros(80 * MiB, "u1")])
    assert near.later == []
    del first
    settle_all(world)
    assert near.later == [30.0]
    # Before long it is only looked again later.
    near.memory.heap.retire_old()
    assert (near.memory.report()["segments"], near.later) == (2, [30.0, 30.0])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    near.memory.heap.retire_old()
    near.memory.tidy()
    # The other is in use.
    assert (near.memory.report()["segments"], world.count) == (1, 1)
    del other
    settle_all(world)
    assert near.later == [30.0] * 3
    monkeypatch.setattr(time, "monotonic", lambda: now + 120)
    near.memory.heap.retire_old()
    near.memory.tidy()
    assert (near.memory.report()["segments"], world.count, near.later) == (0, 0, [30.0] * 3)


def test_a_segment_that_was_refused_by_the_system_is_dropped_at_the_server(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> int:
        raise LimitExceeded("this process cannot open any more descriptors")

    for where, name in ((world.near.lane, "take"), (segments, "OwnSegment")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            if name == "OwnSegment":
                patch.setattr(heap_module, "OwnSegment", lambda number, descriptor, **_: (os.close(descriptor), full()))
            with pytest.raises(LimitExceeded):
                world.near.encode([LARGE])
        world.near.lane.close()
        assert world.count == 0


def test_what_was_received_stays_readable_when_all_is_closed(world: World) -> None:
    arrived = world.near.send([LARGE])
    for peer in (world.near, world.far):
        peer.memory.close()
    assert np.array_equal(arrived[0], LARGE)
    arrived[0][0] = 9
    del arrived
    settle_all(world)
    assert "/memfd:test-segment" not in Path("/proc/self/maps").read_text()


def test_a_process_that_ends_holds_nothing_and_what_it_gave_stays(world: World) -> None:
    near, far = world.near, world.far
    mine, theirs = near.send([LARGE]), far.send([LARGE * 2])
    near.arrays.end()
    assert near.memory.report()["leases_given"] == 0
    assert np.array_equal(theirs[0], LARGE * 2)
    # What ends of the one before is not told to the one after it.
    del theirs
    gc.collect()
    near.memory.settle()
    assert not near.leases.take_returns()
    del mine


def test_blocks_of_one_message_that_lie_together_share_a_mapping(world: World) -> None:
    sent = [np.full(5 * MiB, number, "u1") for number in range(6)]
    arrived = world.near.send(sent)
    assert all(int(each[0]) == int(each[-1]) == number for number, each in enumerate(arrived))
    assert len(world.far.memory._mappings._starts) == 1
    kept = arrived[3]
    del arrived
    world.far.tidy()
    # Its neighbours were returned, though they are mapped still.
    assert world.near.memory.report()["leases_given"] == 1
    assert int(kept[0]) == 3
    del kept
    world.far.tidy()
    assert world.far.memory._mappings._starts == []


def test_mapping_says_which_block_is_gone() -> None:
    ended = EndedHolds(lambda: None)
    fake: Any = FakeSegment()
    leases: Any = FakeLeases()
    fake.generation = 0
    with pytest.raises(LeaseGone, match="block 6 of segment 4"):
        map_blocks([HeldBlock(leases, fake, BlockKey(4, 6, 7), 2, ended)], Spares(PageMap()), ended)


def test_share_of_what_is_no_array_says_so(world: World) -> None:
    with pytest.raises(ValueUnsupported, match="a list is neither a tensor nor a numpy array"):
        world.near.memory.share([1], None)
