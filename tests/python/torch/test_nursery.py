"""Tensors that torch makes in shared memory: sent from where they lie, and safe from whoever still has them."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_airlock.memory import heap, nursery, segments
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.wire.errors import LimitExceeded
from nursery_library import nursery_library
from shared_memory import World, two_processes

torch = pytest.importorskip("torch", reason="torch is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

MIB = 1 << 20
SHAPE = (2, 512, 1024)
SIZE = 4 * MIB


@pytest.fixture
def world() -> Iterator[World]:
    with two_processes() as world:
        world.nursery_path = nursery_library()
        yield world
        gc.collect()
        for peer in (world.near, world.far, world.near):
            peer.memory.tidy()


def made(value: float) -> Any:
    return torch.full(SHAPE, value, dtype=torch.float32)


def warm(world: World, blocks: int = 1) -> None:
    """Has so many blocks of this size offered: each was sent, and returned."""
    kept = [world.near.send([made(each)]) for each in range(blocks)]
    del kept
    world.far.tidy()
    world.near.memory.settle()


def counts(world: World) -> tuple[int, int]:
    report = world.near.memory.report()
    return report["copied_bytes"], report["forwarded_bytes"]


def send(world: World, tensor: Any) -> tuple[Any, int]:
    """What arrives, and how many bytes were copied for it."""
    before = counts(world)[0]
    (arrived,) = world.near.send([tensor])
    return arrived, counts(world)[0] - before


def test_what_is_made_where_something_was_sent_before_is_sent_without_a_copy(world: World) -> None:
    tensor = made(1)
    arrived, copied = send(world, tensor)
    assert copied == SIZE
    del arrived
    world.far.tidy()
    world.near.memory.settle()
    tensor = made(2)
    arrived, copied = send(world, tensor)
    assert copied == 0
    assert torch.equal(arrived, tensor)


def test_in_steady_state_nothing_is_copied_and_no_segment_is_made(world: World) -> None:
    warm(world)
    segments = world.near.memory.report()["segments"]
    for turn in range(20):
        arrived, copied = send(world, made(turn))
        assert (copied, arrived[1, 511, 1023].item()) == (0, turn)
        del arrived
        world.far.tidy()
    assert world.near.memory.report()["segments"] == segments


@pytest.mark.parametrize(
    "write",
    [
        lambda tensor, view: tensor.fill_(9),
        lambda tensor, view: tensor.data.fill_(9),
        lambda tensor, view: view.__setitem__(slice(None), 9),
        lambda tensor, view: torch.ones(SHAPE, out=tensor).mul_(9),
        lambda tensor, view: tensor.numpy().fill(9),
        lambda tensor, view: torch.from_dlpack(tensor).fill_(9),
    ],
    ids=["in place", "through data", "through a numpy view", "as an out", "through numpy", "through dlpack"],
)
def test_what_the_sender_writes_after_it_has_sent_is_not_seen_by_the_receiver(world: World, write: Any) -> None:
    warm(world)
    tensor = made(1)
    view = tensor.numpy()
    address = tensor.data_ptr()
    arrived, copied = send(world, tensor)
    assert copied == 0
    write(tensor, view)
    assert tensor.data_ptr() == address
    assert view[0, 0, 0] == tensor[0, 0, 0].item() == 9
    assert torch.equal(arrived, made(1))
    # It is another now, and is sent as that.
    again, copied = send(world, tensor)
    assert copied == SIZE
    assert torch.equal(again, made(9))
    assert torch.equal(arrived, made(1))


@pytest.mark.parametrize("inference", [False, True])
def test_sent_again_and_again_it_is_never_copied(world: World, inference: bool) -> None:
    with torch.inference_mode(inference):
        warm(world)
        tensor = made(1)
        kept, copied = send(world, tensor)
        assert copied == 0
        for _ in range(3):
            again, copied = send(world, tensor)
            assert copied == 0
            assert torch.equal(again, tensor)
        again, _ = send(world, tensor)
        # Each receipt is a mapping of its own.
        again.fill_(3)
        assert torch.equal(kept, tensor)


def test_what_the_receiver_writes_is_its_own(world: World) -> None:
    warm(world)
    tensor = made(1)
    arrived, _ = send(world, tensor)
    arrived.fill_(5)
    assert torch.equal(tensor, made(1))


def test_a_block_that_is_leased_is_not_used_again_before_it_is_returned(world: World) -> None:
    warm(world)
    arrived, copied = send(world, made(1))
    assert copied == 0
    # The first is gone here, and with the receiver.
    others = [made(each) for each in range(2, 6)]
    assert torch.equal(arrived, made(1))
    del others, arrived
    world.far.tidy()
    world.near.memory.settle()
    arrived, copied = send(world, made(7))
    assert copied == 0
    assert torch.equal(arrived, made(7))


def test_several_views_of_one_storage_alias_where_they_arrive(world: World) -> None:
    warm(world)
    tensor = made(1)
    before = counts(world)[0]
    whole, part = world.near.send([tensor, tensor[1]])
    assert counts(world)[0] == before
    part.fill_(3)
    assert whole[1, 0, 0].item() == 3
    assert tensor[1, 0, 0].item() == 1


def test_two_halves_share_their_block(world: World) -> None:
    warm(world)
    tensor = made(1)
    before = counts(world)[0]
    one, other = world.near.send([tensor[0], tensor[1]])
    assert counts(world)[0] == before
    assert torch.equal(one, tensor[0])
    assert torch.equal(other, tensor[1])
    assert world.near.memory.report()["leases_given"] == 1


def test_a_small_part_of_a_tensor_does_not_keep_all_of_it(world: World) -> None:
    warm(world)
    tensor = made(1)
    arrived, copied = send(world, tensor[0, :100])
    assert copied == 100 * 1024 * 4
    assert torch.equal(arrived, tensor[0, :100])


def test_strides_are_kept(world: World) -> None:
    warm(world)
    tensor = torch.arange(SIZE // 4, dtype=torch.float32).view(1024, 1024)
    for view in (tensor.T, tensor[:, ::2], tensor[1:].permute(1, 0)):
        arrived, copied = send(world, view)
        assert copied == 0
        assert torch.equal(arrived, view)


def test_a_numpy_array_over_a_tensor_is_sent_from_there_too(world: World) -> None:
    warm(world)
    array = made(4).numpy()
    before = counts(world)[0]
    (arrived,) = world.near.send([array])
    assert counts(world)[0] == before
    array[:] = 5
    assert (arrived == 4).all()


def test_a_tensor_that_is_sent_twice_before_either_arrives_is_in_both(world: World) -> None:
    warm(world)
    tensor = made(1)
    messages = [world.near.encode([tensor]) for _ in range(2)]
    arrived = [world.far.decode(body, packed.attachments) for body, packed in messages]
    for _, packed in messages:
        packed.settled()
    tensor.fill_(2)
    assert all(torch.equal(each[0], made(1)) for each in arrived)


def test_what_is_encoded_and_not_sent_is_held_by_nobody(world: World) -> None:
    warm(world)
    tensor = made(1)
    for _ in range(3):
        world.near.encode([tensor])[1].take_back()
    tensor.fill_(2)
    address = tensor.data_ptr()
    del tensor
    gc.collect()
    world.near.memory.settle()
    assert made(3).data_ptr() == address


def test_a_tensor_lives_as_long_as_it_did(world: World) -> None:
    warm(world)
    tensor = made(1)
    is_gone = weakref.ref(tensor)
    arrived, _ = send(world, tensor)
    del tensor
    assert is_gone() is None
    assert torch.equal(arrived, made(1))


def test_what_came_home_is_seen_as_it_was_sent(world: World) -> None:
    warm(world)
    tensor = made(1)
    (there,) = world.near.send([tensor])
    tensor.fill_(2)
    (back,) = world.far.send([there])
    assert torch.equal(back, made(1))
    assert torch.equal(tensor, made(2))


# Memory.


def test_what_torch_has_no_use_for_serves_others(world: World) -> None:
    warm(world)
    segments = world.near.memory.report()["segments"]
    for turn in range(30):
        array = np.full(SIZE // 8, turn, "f8")
        (arrived,) = world.near.send([array])
        assert arrived[-1] == turn
        del arrived
        world.far.tidy()
    assert world.near.memory.report()["segments"] == segments


def test_what_is_offered_is_in_use_by_nobody(world: World) -> None:
    before = world.near.memory.report()["used_bytes"]
    warm(world)
    tensor = made(1)
    headers = world.near.memory.report()["used_bytes"]
    assert headers - before < SIZE
    arrived, _ = send(world, tensor)
    assert world.near.memory.report()["used_bytes"] == headers + SIZE
    del arrived
    world.far.tidy()
    assert world.near.memory.report()["used_bytes"] == headers


def test_intermediate_results_take_blocks_of_their_own_in_time(world: World) -> None:
    def node() -> Any:
        one = made(1)
        two = one * 2
        return two + one

    copied: list[int] = []
    for _ in range(8):
        arrived, each = send(world, node())
        assert torch.equal(arrived, made(3))
        copied.append(each)
        del arrived
        world.far.tidy()
        world.near.memory.settle()
    assert copied[-3:] == [0, 0, 0]


def test_idle_blocks_are_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_IDLE_SECONDS", 0.0)
    warm(world, 3)
    memory = world.near.memory
    assert memory.report()["segments"] == 1
    # One round to see what is used, one to give up the segment.
    for _ in range(3):
        memory.heap.retire_old()
        memory.tidy()
    assert memory.report()["segments"] == 0


def test_where_memory_is_short_torch_keeps_what_it_has_and_the_segment_is_given_up(world: World) -> None:
    warm(world)
    world.bytes_max = world.near.memory.report()["segment_bytes"]
    kept = made(5)
    large = np.zeros(40 * MIB, "u1")
    (arrived,) = world.near.send([large])
    assert len(arrived) == len(large)
    assert torch.equal(kept, made(5))
    # It is torch's alone now, and copied as any other.
    arrived, _ = send(world, kept[0, :100])
    assert torch.equal(arrived, kept[0, :100])
    del kept


def test_too_much_is_still_a_clear_error_and_loses_nothing(world: World) -> None:
    warm(world)
    tensor = made(1)
    arrived, _ = send(world, tensor)
    world.bytes_max = world.near.memory.report()["segment_bytes"]
    with pytest.raises(LimitExceeded, match=r"no memory for a tensor"):
        world.near.send([torch.zeros(80 * MIB, dtype=torch.uint8)])
    assert torch.equal(arrived, made(1))
    assert torch.equal(tensor, made(1))


def test_what_outlives_its_connection_stays_torchs(world: World) -> None:
    warm(world)
    tensor = made(1)
    arrived, copied = send(world, tensor)
    assert copied == 0
    world.near.memory.close()
    tensor.fill_(2)
    assert torch.equal(tensor, made(2))
    assert torch.equal(arrived, made(1))
    address = tensor.data_ptr()
    del tensor, arrived
    gc.collect()
    assert not is_mapped(address)


def is_mapped(address: int) -> bool:
    with open("/proc/self/maps") as maps:
        ranges = [line.split()[0].split("-") for line in maps]
    return any(int(low, 16) <= address < int(high, 16) for low, high in ranges)


@pytest.mark.parametrize(("audience", "copied"), [(None, 0), (0, 0), (7, SIZE)])
def test_nothing_is_made_in_memory_that_one_pack_alone_may_look_at(
    world: World, audience: int | None, copied: int
) -> None:
    world.near.audience = audience
    warm(world)
    assert send(world, made(1))[1] == copied


# Forks.


def test_a_forked_child_has_the_tensors_that_there_were(world: World) -> None:
    warm(world, 2)
    sent, unsent = made(1), made(2)
    arrived, copied = send(world, sent)
    assert copied == 0
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            is_as_it_was = sent[1, 5, 5].item() == 1 and unsent[1, 5, 5].item() == 2
            sent.fill_(8)
            unsent.fill_(8)
            code = 0 if is_as_it_was else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert torch.equal(sent, made(1))
    assert torch.equal(unsent, made(2))
    # What a child may still look at is not used again.
    addresses = {each.data_ptr() for each in (sent, unsent)}
    del sent, unsent, arrived
    world.far.tidy()
    world.near.memory.settle()
    for turn in range(4):
        arrived, _ = send(world, made(turn))
        assert torch.equal(arrived, made(turn))
        del arrived
        world.far.tidy()
    assert made(0).data_ptr() not in addresses


# Any history, with threads.


def test_threads_send_and_change_what_they_like(world: World) -> None:
    """Each sees its own values, and what was sent stays what it was."""
    warm(world, 3)
    errors: list[BaseException] = []
    turn_of_the_receiver = threading.Lock()

    def work(seed: int) -> None:
        try:
            for turn in range(25):
                value = float(seed * 1000 + turn)
                tensor = made(value)
                with turn_of_the_receiver:
                    (arrived,) = world.near.send([tensor])
                tensor.add_(0.5)
                assert torch.equal(arrived, made(value))
                assert torch.equal(tensor, made(value + 0.5))
                del arrived, tensor
                if turn % 5 == 0:
                    with turn_of_the_receiver:
                        world.far.tidy()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# Moments, and histories, in which it was once wrong.


def while_it_ends(peer: Any, kind: str, act: Any) -> None:
    """Has something done by another thread at the moment when a block of ``peer``'s is found to have no holder."""
    put = peer.memory.ended.put

    def first(ended: Any, *more: Any) -> None:
        if type(ended).__name__ == kind:
            peer.memory.ended.put = put
            thread = threading.Thread(target=act)
            thread.start()
            thread.join()
        put(ended, *more)

    peer.memory.ended.put = first


def test_a_block_whose_last_lease_ends_is_not_leased_as_it_was(world: World) -> None:
    warm(world)
    sent = [made(1)]
    (arrived,) = world.near.send(sent)
    again: list[Any] = []
    while_it_ends(world.near, "Freed", lambda: again.extend(world.near.send(sent)))
    del arrived
    world.far.tidy()
    world.near.memory.settle()
    assert world.near.memory.report()["leases_given"] == 1
    address = sent.pop().data_ptr()
    assert made(7).data_ptr() != address
    assert torch.equal(again[0], made(1))


def test_a_lease_that_ends_is_not_taken_up_by_the_next_receipt(world: World) -> None:
    shared = [world.near.memory.share(made(5), None)]
    (arrived,) = world.near.send(shared)
    again: list[Any] = []
    while_it_ends(world.far, "Dropped", lambda: again.extend(world.near.send(shared)))
    del arrived
    world.far.tidy()
    assert world.near.memory.report()["leases_given"] == 1
    assert world.far.memory.report()["leases_held"] == 1
    shared.clear()
    world.near.tidy()
    (other,) = world.near.send([np.full(SIZE, 9, "u1")])
    assert (other == 9).all()
    assert torch.equal(again[0], made(5))


def test_a_forked_child_can_close_what_it_has_inherited(world: World) -> None:
    warm(world, 2)
    tensor = made(1)
    arrived, _ = send(world, tensor)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            world.near.memory.close()
            code = 0 if tensor[1, 5, 5].item() == arrived[1, 5, 5].item() == 1 else 2
            address = tensor.data_ptr()
            del tensor
            code = code or int(is_mapped(address))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert torch.equal(arrived, tensor)


def test_what_did_not_fit_leaves_the_rest_of_the_memory_of_use(world: World) -> None:
    warm(world)
    kept = made(1)
    (held,) = world.near.send([np.ones(SIZE, "u1")])
    world.bytes_max = world.near.memory.report()["segment_bytes"]
    with pytest.raises(LimitExceeded):
        world.near.send([np.ones(80 * MIB, "u1")])
    (arrived,) = world.near.send([np.full(SIZE, 3, "u1")])
    assert (arrived == 3).all()
    assert (held == 1).all()
    assert torch.equal(kept, made(1))


def test_what_comes_back_where_memory_is_short_is_for_who_waits(world: World) -> None:
    world.bytes_max = 3 * (40 * MIB + PAGE_BYTES)
    stays = world.near.send([np.ones(40 * MIB, "u1")])
    gc.disable()
    try:
        for turn in range(4):
            arrived: list[Any] = [world.near.send([np.full(40 * MIB, turn, "u1")])]
            # Garbage that is found only when it is looked for.
            arrived.append(arrived)
            del arrived
    finally:
        gc.enable()
    made_segments = world.near.asked.count("make_segment")
    (last,) = world.near.send([np.full(40 * MIB, 9, "u1")])
    assert last[-1] == 9
    assert world.near.asked.count("make_segment") - made_segments <= 1
    del stays


def test_tensors_that_are_kept_cost_others_no_warm_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.near.memory.heap, "_idle_bytes_max", 8 * SIZE)
    kept: list[Any] = []
    for turn in range(40):
        kept.append(made(turn))
        send(world, kept[-1])
        world.far.tidy()
    asked = len(world.near.asked)
    for turn in range(20):
        assert torch.equal(send(world, made(turn))[0], made(turn))
        world.far.tidy()
    assert len(world.near.asked) - asked <= 4
    assert all(torch.equal(each, made(turn)) for turn, each in enumerate(kept))


def test_memory_that_is_kept_warm_has_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.near.memory.heap, "_idle_bytes_max", 16 * SIZE)
    for wave in range(1, 6):
        held = [world.near.send([made(each)]) for each in range(10 * wave)]
        del held
        world.far.tidy()
        world.near.memory.tidy()
        # A segment has as many blocks as fit, and some pages more.
        assert world.near.memory.report()["segment_bytes"] <= 2 * 16 * SIZE


def test_forks_take_no_more_memory_however_many(world: World) -> None:
    warm(world)
    for turn in range(60):
        tensor = made(turn)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        arrived, _ = send(world, tensor)
        tensor += 1
        assert torch.equal(arrived, made(turn))
        del arrived, tensor
        world.far.tidy()
        world.near.memory.tidy()
    assert world.near.memory.report()["segment_bytes"] <= 2 * 65 * MIB


@pytest.mark.parametrize("name", ["leased", "begin_generation"])
def test_an_interrupt_as_a_block_is_leased_loses_that_block_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    warm(world)
    tensor = made(1)
    of = nursery.BornBlock if name == "leased" else segments.OwnSegment
    act = getattr(of, name)

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(of, name, act)
        raise KeyboardInterrupt

    monkeypatch.setattr(of, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.near.send([tensor])
    world.near.arrays.revert()
    gc.collect()
    world.near.memory.settle()
    arrived, _ = send(world, tensor)
    world.near.memory.heap._give_up_idle()
    tensor.fill_(2)
    assert torch.equal(arrived, made(1))
    del arrived, tensor
    world.far.tidy()
    assert torch.equal(send(world, made(3))[0], made(3))
