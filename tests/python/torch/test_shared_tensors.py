"""torch tensors in shared memory: dtypes, layouts, aliases, autograd's marks, and which are sent without a copy."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_airlock.memory.unpacking import unpack
from comfy_airlock.wire.arrays import EXTRA_DTYPES, NATIVE_DTYPES, AsTensor
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from same import same
from shared_memory import World, two_processes

torch = pytest.importorskip("torch", reason="torch is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

ROWS = 200
"""Rows of 1024 elements: of any element type, more than is sent inside a message."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with two_processes() as world:
        # Segments, so that tests don't find some that were not there before.
        for size in (1 << 16, 5 << 20):
            for peer in (world.near, world.far):
                peer.send([torch.zeros(size, dtype=torch.uint8)])
        yield world


@pytest.fixture(autouse=True)
def _settled(world: World) -> Iterator[None]:
    """What tests leave to be given up is, before it is looked at what they leave open."""
    yield
    for peer in (world.near, world.far, world.near):
        peer.tidy()


class Counts:
    """What one side has copied and forwarded meanwhile."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self._before = self._now()

    def _now(self) -> tuple[int, int]:
        report = self._peer.memory.report()
        return report["copied_bytes"], report["forwarded_bytes"]

    @property
    def copied(self) -> int:
        return self._now()[0] - self._before[0]

    @property
    def forwarded(self) -> int:
        return self._now()[1] - self._before[1]


def sent(world: World, tensor: Any) -> Any:
    (arrived,) = world.near.send([tensor])
    return arrived


@pytest.mark.parametrize("name", sorted(NATIVE_DTYPES | EXTRA_DTYPES))
def test_element_type_arrives(world: World, name: str) -> None:
    raw = torch.arange(ROWS * 1024, dtype=torch.int64).to(torch.uint8) % (2 if name == "bool" else 120)
    dtype = getattr(torch, name)
    tensor = raw.repeat_interleave(1).view(torch.uint8)
    tensor = (tensor.bool() if name == "bool" else tensor.repeat(dtype.itemsize).view(dtype)).reshape(ROWS, -1)
    counts = Counts(world.near)
    arrived = sent(world, tensor)
    assert same(arrived, tensor)
    assert counts.copied == tensor.numel() * tensor.element_size()
    # Without being written to, it goes home as it is.
    counts = Counts(world.far)
    (home,) = world.far.send([arrived])
    assert same(home, tensor)
    assert (counts.copied, counts.forwarded) == (0, tensor.numel() * tensor.element_size())


BASE = torch.arange(2 * 3 * 64 * 128, dtype=torch.float32).reshape(2, 3, 64, 128)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_dense_memory_format_is_kept(world: World, order: tuple[int, ...]) -> None:
    tensor = BASE.permute(order)
    arrived = sent(world, tensor)
    assert torch.equal(arrived, tensor)
    assert arrived.stride() == tensor.stride()


def test_channels_last_is_kept_here_there_and_home(world: World) -> None:
    tensor = BASE.contiguous(memory_format=torch.channels_last)
    there = sent(world, tensor)
    (home,) = world.far.send([there])
    for each in (there, home):
        assert each.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(each, BASE)


@pytest.mark.parametrize(
    "of",
    [lambda base: base[..., ::2], lambda base: base[:1].expand(4, 3, 64, 128), lambda base: base[:, :, 1:]],
    ids=["every other", "expanded", "a window"],
)
def test_what_has_gaps_or_repeats_becomes_contiguous(world: World, of: Any) -> None:
    tensor = of(BASE)
    arrived = sent(world, tensor)
    assert torch.equal(arrived, tensor)
    assert arrived.is_contiguous()


def test_views_of_one_tensor_are_views_of_one_where_they_arrive(world: World) -> None:
    base = BASE.clone()
    views = [base, base[1], base.permute(3, 2, 1, 0), base[..., ::7], base.view(torch.int32), base[0:1].squeeze(0)]
    arrived = world.near.send(views)
    for before, after in zip(views, arrived, strict=True):
        assert torch.equal(before, after)
        assert before.stride() == after.stride()
    base.fill_(5)
    arrived[0].fill_(5)
    for before, after in zip(views, arrived, strict=True):
        assert torch.equal(before, after)
    # In their order: what is written through a view is seen in the whole.
    arrived[1].fill_(7)
    assert arrived[0][1].min() == 7
    assert arrived[0][0].max() == 5


def test_a_tensor_and_a_numpy_array_of_the_same_memory_alias(world: World) -> None:
    tensor = BASE.clone()
    there, array = world.near.send([tensor, tensor.numpy()])
    array[...] = 3
    assert there.max() == there.min() == 3


def test_many_small_tensors_alias_only_where_they_did(world: World) -> None:
    one = torch.ones(4)
    arrived = world.near.send([one, one, *(torch.zeros(4) for _ in range(6))])
    arrived[0].fill_(9)
    assert arrived[1].max() == 9
    assert all(each.max() == 0 for each in arrived[2:])
    separate = world.near.send([torch.full((4,), float(number)) for number in range(8)])
    separate[3].fill_(-1)
    assert [float(each[0]) for each in separate] == [0, 1, 2, -1, 4, 5, 6, 7]


def test_a_tensor_with_a_graph_arrives_as_its_elements(world: World) -> None:
    leaf = BASE.clone().requires_grad_()
    parameter = torch.nn.Parameter(BASE.clone())
    for tensor in (leaf, leaf * 2, parameter):
        arrived = sent(world, tensor)
        assert torch.equal(arrived, tensor.detach())
        assert type(arrived) is torch.Tensor
        assert not arrived.requires_grad
    # Where it was, it is what it was.
    assert leaf.requires_grad
    small = world.near.send([torch.ones(2, requires_grad=True) for _ in range(5)])
    assert not any(each.requires_grad for each in small)


def test_what_arrives_can_be_learned_from(world: World) -> None:
    arrived = sent(world, BASE).requires_grad_()
    (arrived * 2).sum().backward()
    assert arrived.grad.min() == 2


def test_conjugated_and_negated_views_arrive_as_their_values(world: World) -> None:
    tensor = torch.complex(BASE, BASE + 1)
    for view in (tensor.conj(), tensor.conj().imag, tensor.mH):
        arrived = sent(world, view)
        assert torch.equal(arrived, view)
        assert not arrived.is_conj()
        assert not arrived.is_neg()
    small = [torch.tensor([1 + 2j]).conj() for _ in range(5)]
    assert all(torch.equal(after, before) for before, after in zip(small, world.near.send(small), strict=True))


REFUSED = {
    "sparse": lambda: torch.ones(2, 2).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8),
    "meta": lambda: torch.ones(2, 2, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "complex32": lambda: torch.ones(2, 2, dtype=torch.complex32),
}


@pytest.mark.parametrize("count", [1, 5], ids=["one", "several of a kind"])
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "behind dense ones"])
@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_plain_elements_is_refused_by_its_path(world: World, kind: str, count: int, mixed: bool) -> None:
    dense = [torch.ones(2, 2) for _ in range(5)] if mixed else []
    with pytest.raises(ValueUnsupported, match=rf"value\['value'\]\[{len(dense)}\]\['x'\].*{kind}"):
        world.near.send([*dense, *({"x": REFUSED[kind]()} for _ in range(count))])


def test_a_received_tensor_is_of_the_mode_that_it_is_decoded_in(world: World) -> None:
    with torch.inference_mode():
        made = BASE * 1
        body, packed = world.near.encode([made])
        packed.settled()
    assert made.is_inference()
    ordinary = world.far.decode(body, packed.attachments)[0]
    assert not ordinary.is_inference()
    assert torch.equal(ordinary, BASE)
    with torch.inference_mode():
        arrived = sent(world, BASE)
        small = sent(world, torch.ones(2))
    assert arrived.is_inference()
    assert small.is_inference()
    # Sent on out of the mode, too, and without a copy.
    counts = Counts(world.far)
    (home,) = world.far.send([arrived])
    assert torch.equal(home, BASE)
    assert counts.copied == 0


def in_place(tensor: Any) -> None:
    tensor.add_(1)


def through_numpy(tensor: Any) -> None:
    tensor.numpy()[0] = 77


def through_data(tensor: Any) -> None:
    tensor.data.mul_(2)


def last_byte(tensor: Any) -> None:
    tensor.view(-1).view(torch.uint8)[-1] ^= 1


def through_a_view(tensor: Any) -> None:
    tensor[1, 2, 3].fill_(5)


def as_its_out(tensor: Any) -> None:
    torch.add(BASE, 3, out=tensor)


@pytest.mark.parametrize("write", [in_place, through_numpy, through_data, last_byte, through_a_view, as_its_out])
def test_a_received_tensor_that_was_written_to_is_sent_anew(world: World, write: Any) -> None:
    there = sent(world, BASE)
    write(there)
    counts = Counts(world.far)
    (home,) = world.far.send([there])
    assert torch.equal(home, there)
    assert not torch.equal(home, BASE)
    assert (counts.copied, counts.forwarded) == (BASE.nbytes, 0)


def test_a_part_of_a_received_tensor_is_forwarded_where_that_part_was_not_written_to(world: World) -> None:
    there = sent(world, BASE)
    there[0].fill_(0)
    counts = Counts(world.far)
    (home,) = world.far.send([there[1]])
    assert torch.equal(home, BASE[1])
    assert (counts.copied, counts.forwarded) == (0, BASE[1].nbytes)
    (all_of_it,) = world.far.send([there])
    assert torch.equal(all_of_it, there)
    assert counts.copied == BASE.nbytes


def test_reading_a_tensor_is_not_writing_to_it(world: World) -> None:
    there = sent(world, BASE)
    assert there.sum() + there.numpy().sum() + (there * 2).sum() > 0
    there.contiguous().tolist()
    counts = Counts(world.far)
    world.far.send([there])
    assert counts.copied == 0


def test_share_gives_what_is_sent_again_and_again_without_a_copy(world: World) -> None:
    shared = world.near.memory.share(BASE.contiguous(memory_format=torch.channels_last), None)
    assert torch.equal(shared, BASE)
    assert shared.is_contiguous(memory_format=torch.channels_last)
    counts = Counts(world.near)
    first, second = sent(world, shared), sent(world, shared)
    assert (counts.copied, counts.forwarded) == (0, 2 * BASE.nbytes)
    first.zero_()
    assert torch.equal(second, BASE)
    shared.add_(1)
    assert torch.equal(sent(world, shared), BASE + 1)
    assert counts.copied == BASE.nbytes
    assert torch.equal(second, BASE)
    with pytest.raises(ValueUnsupported, match="sparse"):
        world.near.memory.share(torch.ones(2).to_sparse(), None)
    empty = torch.empty(0, 3)
    assert world.near.memory.share(empty, None) is empty


def test_nobody_can_tell_that_a_numpy_view_of_a_tensor_exists() -> None:
    """Why a tensor's storage is not moved into a block behind its back when it is first sent.

    What it had before would be somebody else's: a numpy view keeps the tensor, which any other reference would do as
    well, and its address. Nothing of that is seen in the tensor or its storage.
    """
    tensor = BASE.clone()
    storage = tensor.untyped_storage()
    seen = storage._use_count() if hasattr(storage, "_use_count") else None
    version = tensor._version
    view = tensor.numpy()
    assert (storage._use_count() if seen is not None else None) == seen
    assert tensor._version == version
    assert view.base is tensor or tensor in gc.get_referents(view) or view.base is not None
    moved = BASE.clone()
    tensor.set_(moved.untyped_storage(), 0, tensor.shape, tensor.stride())
    view[0] = -1
    # The view is of memory that the tensor has no more: a write through it would be lost.
    assert torch.equal(tensor, BASE)


def test_a_tensor_is_made_of_an_array_of_any_layout(world: World) -> None:
    base = np.arange(64 * 1024, dtype="f4").reshape(64, 1024)
    arrays = [base, base[::-1, ::-2], base.T, base.astype("f4", order="F"), np.broadcast_to(base[:1], (64, 1024))]
    for array in arrays:
        arrived = sent(world, AsTensor(array))
        assert isinstance(arrived, torch.Tensor)
        assert torch.equal(arrived, torch.from_numpy(array.copy()))
    together = world.near.send([AsTensor(each) for each in arrays[:3]])
    for array, arrived in zip(arrays, together, strict=False):
        assert torch.equal(arrived, torch.from_numpy(array.copy()))


@pytest.mark.parametrize(
    "entry",
    [
        ["tensor", "float32", [1 << 40, 2], "C", [0, 8, [0, -4]]],
        ["tensor", "float32", [1 << 30], "C", [0, 2, [0]]],
        ["tensor", "float32", [1 << 62, 1 << 62], "C", [0, 0, [0, 0]]],
    ],
    ids=["backwards", "between elements", "more than numbers count"],
)
def test_a_table_has_no_more_memory_taken_than_there_is(entry: Any) -> None:
    buffer = bytearray(4096)
    try:
        (arrived,) = unpack([entry], lambda: [buffer])
    except (ValueInvalid, RuntimeError):
        return
    assert arrived.untyped_storage().nbytes() <= len(buffer)
