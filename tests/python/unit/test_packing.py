"""Arrays between two processes that share memory: any layout arrives as the same elements, and as views of one another
where they were; and no table, whoever made it, leads out of the memory that it names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from comfy_airlock.memory import libc
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.packing import pack
from comfy_airlock.memory.sources import order_of, strides_in_order
from comfy_airlock.memory.unpacking import unpack
from comfy_airlock.wire.arrays import AsTensor
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from comfy_airlock.wire.laden import LadenBody
from comfy_airlock.wire.limits import INLINE_ARRAY_BYTES, INLINE_ARRAYS_BYTES_MAX
from same import same
from shared_memory import World, make_memfd, two_processes

SHAPES = st.lists(st.integers(1, 4), max_size=4)


# How elements lie.


@given(SHAPES, st.data())
def test_an_order_says_the_strides_and_the_strides_the_order(shape: list[int], data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(len(shape))))
    for order in ("C", "F", list(axes)):
        strides = strides_in_order(shape, order, 4)
        elements = np.ndarray(shape, "i4", np.arange(np.prod(shape, dtype=int), dtype="i4"), 0, strides)
        slowest_first = (
            list(range(len(shape))) if order == "C" else list(range(len(shape)))[::-1] if order == "F" else order
        )
        assert elements.transpose(slowest_first).flags.c_contiguous
        again = order_of(shape, strides, 4)
        assert again is not None
        found = strides_in_order(shape, again, 4)
        # Axes of one element lie anywhere.
        assert [a for a, n in zip(found, shape, strict=True) if n > 1] == [
            a for a, n in zip(strides, shape, strict=True) if n > 1
        ]


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_every_permutation_of_a_dense_array_is_an_order(axes: tuple[int, ...]) -> None:
    array = np.zeros((2, 3, 4), "f4").transpose(axes)
    names: dict[tuple[int, ...], str] = {(0, 1, 2): "C", (2, 1, 0): "F"}
    order = order_of(list(array.shape), array.strides, 4)
    assert order == names.get(axes) or np.transpose(array, order).flags.c_contiguous


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4))[:, ::2], np.zeros(4)[::-1], np.broadcast_to(np.zeros(3), (2, 3)), np.zeros((4, 4))[1:, 1:]],
    ids=["every other", "backwards", "broadcast", "a window"],
)
def test_gaps_and_repetitions_have_no_order(array: Any) -> None:
    assert order_of(list(array.shape), array.strides, 8) is None


# Any array.

DTYPES = [
    "?", "u1", "i2", "<i4", ">i4", "u8", "f2", "f4", ">f8", "c8", "c16", "<U3", "S5", "V7", "M8[ns]", "m8[s]",
    [("a", "u1"), ("b", ">f4"), ("c", "<i2", (2,))], ml_dtypes.bfloat16, ml_dtypes.float8_e5m2,
]  # fmt: skip


@st.composite
def views(draw: st.DrawFn) -> Any:
    """An array of any element type, and a view of it of any kind."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    size = int(np.prod(shape)) * dtype.itemsize
    content = bytes(draw(st.binary(min_size=0, max_size=16))) or b"\x01"
    raw = (content * (size // len(content) + 1))[:size]
    if dtype == np.dtype("?"):
        raw = bytes(each & 1 for each in raw)
    if dtype.kind == "U":
        raw = "äb0"[: size // 4].ljust(size // 4, "z").encode("utf-32-le")
    base = np.frombuffer(raw, dtype).reshape(shape) if size else np.zeros(shape, dtype)
    if draw(st.booleans()):
        base = np.asfortranarray(base) if draw(st.booleans()) else base.copy()
    view = base
    if shape and draw(st.booleans()):
        view = view.transpose(draw(st.permutations(range(len(shape)))))
    if shape and size and draw(st.booleans()):
        view = view[draw(st_numpy.basic_indices(view.shape, allow_ellipsis=False, allow_newaxis=True))]
    if isinstance(view, np.ndarray) and view.ndim < 4 and draw(st.booleans()):
        view = np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape))
    return np.asarray(view) if isinstance(view, np.ndarray) else np.asarray(base)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with two_processes() as world:
        # Segments, so that tests don't find some that were not there before.
        for size in (1 << 16, 5 << 20):
            world.near.send([np.zeros(size, "u1")])
        yield world


@pytest.mark.parametrize("inline_max", [0, INLINE_ARRAY_BYTES], ids=["in blocks", "inline"])
@given(st.lists(views(), max_size=7), st.booleans())
def test_any_arrays_arrive_as_what_they_are(
    world: World, inline_max: int, sent: list[Any], all_as_tensors: bool
) -> None:
    value: list[Any] = sent
    if all_as_tensors:
        # Without torch they arrive as arrays all the same; of other element types torch has no tensors.
        value = [AsTensor(each) if each.dtype.kind in "?uif" and each.dtype.isnative else each for each in sent]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "comfy_airlock.wire.arrays.installed",
            lambda name: None if name == "torch" else np if name == "numpy" else ml_dtypes,
        )
        patch.setattr("comfy_airlock.memory.unpacking.installed", lambda _: None)
        patch.setattr("comfy_airlock.memory.unpacking.loaded", lambda name: None if name == "torch" else np)
        if inline_max == 0:
            patch.setattr("comfy_airlock.memory.packing.INLINE_ARRAYS_BYTES_MAX", -1)
        arrived = world.near.send(value)
    for before, after in zip(sent, arrived, strict=True):
        assert same(after, before)
        assert after.flags.writeable or not after.size


@given(st.lists(views(), min_size=2, max_size=5))
def test_none_are_views_of_one_another_that_were_not(world: World, sent: list[Any]) -> None:
    arrived = world.near.send([each.copy() for each in sent])
    for index, one in enumerate(arrived):
        for other in arrived[index + 1 :]:
            assert not np.shares_memory(one, other)


BASE = np.arange(40_000, dtype="i4").reshape(100, 400)


@pytest.mark.parametrize(
    "of",
    [
        lambda base: [base, base],
        lambda base: [base[:60], base[40:]],
        lambda base: [base, base[::-1, ::-2], base.T, base[5:6, 7]],
        lambda base: [base[::2], base, base.view("u1"), base.ravel()[3:9]],
        lambda base: [base[:50], base.ravel()[-1:], base[49:]],
    ],
    ids=["the same twice", "overlapping", "views", "other types", "a chain"],
)
def test_views_of_one_array_are_views_of_one_array_where_they_arrive(world: World, of: Any) -> None:
    base = BASE.copy()
    sent = of(base)
    arrived = world.near.send(sent)
    for before, after in zip(sent, arrived, strict=True):
        assert same(after, before)
    for left in range(len(sent)):
        for right in range(len(sent)):
            assert np.shares_memory(arrived[left], arrived[right]) == np.shares_memory(sent[left], sent[right])
    # What is written through one is read through the other, as it is here.
    for each in (sent, arrived):
        each[0][...] = 3
    for before, after in zip(sent, arrived, strict=True):
        assert same(after, before)


def test_arrays_side_by_side_in_one_base_do_not_alias(world: World) -> None:
    base = BASE.copy()
    first, second = world.near.send([base[:50], base[50:]])
    first[:] = 0
    assert np.array_equal(second, BASE[50:])


def test_many_small_arrays_of_a_kind_are_one_entry_and_one_copy(world: World) -> None:
    sent = [np.full((3, 2), number, "f4") for number in range(500)]
    table = pack(sent, None).entries
    assert [entry[:4] + entry[5:] for entry in table] == [["ndarray", "float32", [3, 2], "C", 500]]
    arrived = world.near.send(sent)
    assert all(same(after, before) for before, after in zip(sent, arrived, strict=True))
    arrived[7][:] = 0
    assert arrived[6].min() == 6
    assert arrived[8].min() == 8
    # Those that share memory are no such.
    assert len(pack([sent[0]] * 5, None).entries) == 5
    mixed = world.near.send([*sent[:5], sent[0].astype(">f4"), np.zeros((2, 3), "f4")])
    assert [each.dtype.byteorder for each in mixed] == ["="] * 5 + [">", "="]


def test_small_arrays_stay_in_the_message_up_to_so_many_bytes(world: World) -> None:
    small = INLINE_ARRAY_BYTES - 8
    sent = [np.full(small // 8, float(number)) for number in range(2 * INLINE_ARRAYS_BYTES_MAX // small)]
    sent[0] = sent[0].astype(">f8")
    _, packed = world.near.encode(sent[: INLINE_ARRAYS_BYTES_MAX // small])
    assert packed.attachments == b""
    _, packed = world.near.encode(sent)
    assert len(packed.attachments) == 16
    packed.take_back()
    body, packed = world.near.encode([np.zeros(INLINE_ARRAY_BYTES, "u1")])
    assert len(packed.attachments) == 16
    assert len(body) < 100
    packed.take_back()


@pytest.mark.parametrize(
    "make", [bytes, bytearray, lambda data: memoryview(data)[7:]], ids=["bytes", "bytearray", "view"]
)
def test_large_bytes_travel_as_arrays_do(world: World, make: Any) -> None:
    sent = make(os.urandom(600_000))
    value = {"deep": [(sent, "beside"), {"other": b"short"}], "again": sent}
    body, packed = world.near.encode(value)
    assert len(body) < 200
    packed.settled()
    arrived = world.far.decode(body, packed.attachments)
    assert arrived == {"deep": [(bytes(sent), "beside"), {"other": b"short"}], "again": bytes(sent)}
    assert type(arrived["again"]) is bytes


def test_what_cannot_cross_is_named_by_its_path(world: World) -> None:
    with pytest.raises(ValueUnsupported, match=r"value\['value'\]\[1\]\['x'\].*Python objects"):
        world.near.send([BASE, {"x": np.array([object()])}])
    with pytest.raises(ValueUnsupported, match=r"value\['value'\]\[4\].*MaskedArray"):
        world.near.send([np.zeros(2)] * 4 + [np.ma.array([1, 2])])
    with pytest.raises(ValueUnsupported, match=r"value\['value'\]\[0\].*marked as a tensor, and is a list"):
        world.near.send([AsTensor([1])])
    world.far.tidy()
    assert world.near.memory.report()["leases_given"] == world.far.memory.report()["leases_held"] == 0


# Tables from anybody.


class Blocks:
    """Memory of two pages between pages that may not be touched: whoever reads outside ends this process."""

    def __init__(self) -> None:
        size = 4 * PAGE_BYTES
        descriptor = make_memfd(size)
        self._size = size
        self.address = libc._map(-1, 0, size, 0, 0x22)
        inside = libc._libc.mmap(self.address + PAGE_BYTES, 2 * PAGE_BYTES, 3, 0x12, descriptor, 0)
        assert inside == self.address + PAGE_BYTES
        os.close(descriptor)
        self.buffer = libc.buffer_at(inside, 2 * PAGE_BYTES)

    def close(self) -> None:
        libc.unmap(self.address, self._size)


@pytest.fixture(scope="module")
def blocks() -> Iterator[Blocks]:
    blocks = Blocks()
    yield blocks
    blocks.close()


class Table:
    """As much of a pair's arrays as decoding asks for."""

    noted: dict[int, list[Any]] = {}

    def __init__(self, buffers: list[Any]) -> None:
        self._buffers = buffers

    def from_entries(self, entries: Any, body: LadenBody) -> list[Any]:
        del body
        return unpack(entries, lambda: self._buffers)


NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, 8, 4095, 4096, 8191, 8192, 8193, 2**31, 2**32, 2**62, 2**63 - 1, 2**63]
) | st.integers(0, 9000)
SIGNED = NUMBERS | NUMBERS.map(lambda each: -min(each, 2**63))
JUNK = (
    st.none()
    | st.booleans()
    | st.floats()
    | SIGNED
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.just([])
    | st.just({})
)
LENGTHS = st.lists(NUMBERS | st.integers(0, 5), max_size=4)
TYPES = st.sampled_from(
    [
        "uint8",
        "float32",
        "int64",
        "complex128",
        "bfloat16",
        ">f4",
        "<U5",
        "V4096",
        "O",
        "|O",
        "V0",
        [["x", "<f4"]],
        [["x", "|O"]],
    ]
)


def mostly(wanted: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(wanted, wanted, wanted, wanted, wanted, wanted, wanted, JUNK)


@st.composite
def entries(draw: st.DrawFn) -> Any:
    shape = draw(mostly(LENGTHS))
    axes = len(shape) if isinstance(shape, list) else 1
    place = st.tuples(
        mostly(st.integers(0, 1)), mostly(NUMBERS), mostly(st.none() | st.lists(SIGNED, min_size=axes, max_size=axes))
    ).map(list)
    order = st.sampled_from(["C", "F"]) | st.permutations(range(axes)).map(list)
    parts = [
        draw(mostly(st.sampled_from(["ndarray", "tensor", "bytes"]))), draw(mostly(TYPES)), shape, draw(mostly(order)),
        draw(mostly(place | st.binary(max_size=64))),
    ]  # fmt: skip
    if draw(st.booleans()):
        parts.append(draw(mostly(st.integers(1, 3) | NUMBERS)))
    return parts


@given(st.lists(entries() | JUNK, min_size=1, max_size=3))
def test_a_table_from_anybody_never_leads_out_of_its_blocks(blocks: Blocks, table: list[Any]) -> None:
    codec = Codec(arrays=Table([blocks.buffer]))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    value = [msgpack.ExtType(5, msgpack.packb(index)) for index in range(len(table))]
    body = LadenBody(msgpack.packb([table, value]) or b"")
    body.has_arrays = True
    try:
        arrived = codec.decode(body)
    except ValueInvalid:
        return
    for each in arrived:
        if isinstance(each, bytes):
            assert len(each) <= 2 * PAGE_BYTES
        elif each.size:
            # Reads the outermost elements, whatever the strides: outside, this ends the process.
            corners = (
                [()]
                if each.ndim == 0
                else np.stack(np.meshgrid(*([0, n - 1] for n in each.shape), indexing="ij"), -1).reshape(-1, each.ndim)
            )
            for corner in corners:
                each[tuple(corner)].tobytes()
