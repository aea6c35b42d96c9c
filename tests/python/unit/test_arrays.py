"""numpy arrays by value: every element type and memory layout, and nothing that is more than its elements."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.wire.arrays import EXTRA_DTYPES, NATIVE_DTYPES, AsTensor, rebuild, rebuild_named
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from comfy_airlock.wire.registry import Opaque
from same import same

CODEC = Codec()


def back(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


@pytest.mark.parametrize("name", sorted(NATIVE_DTYPES))
def test_plain_element_type_arrives(name: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(name)
    assert same(back(array), array)


@pytest.mark.parametrize("name", sorted(EXTRA_DTYPES))
def test_element_type_of_ml_dtypes_arrives(name: str) -> None:
    array = np.array([[0.5, 1.0, 2.0]]).astype(getattr(ml_dtypes, name))
    assert same(back(array), array)


@pytest.mark.parametrize(
    "array",
    [
        np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "<i2"), ("b", "<f8")]),
        np.zeros(2, dtype=[("grid", "<f4", (2, 3)), ("inner", [("x", "u1"), ("y", ">i4")])]),
        np.zeros(3, dtype=np.dtype([("a", "u1"), ("b", "<f8")], align=True)),
        np.array([1, 2, 3], dtype=">f4"),
        np.array([1, 2, 3], dtype=">u2"),
        np.array(["2026-01-02", "NaT"], dtype="datetime64[ns]"),
        np.array([5, -5], dtype="timedelta64[ms]"),
        np.array(["é", "longer"]),
        np.array([b"a", b"bcd"]),
        np.zeros(2, dtype="V5"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_numpys_other_element_types_arrive(array: Any) -> None:
    assert same(back(array), array)
    assert same(back(array[::-1]), array[::-1])


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0, 2), (1, 1, 1)])
def test_array_without_axes_or_elements_keeps_its_shape(shape: tuple[int, ...]) -> None:
    assert same(back(np.ones(shape, "f4")), np.ones(shape, "f4"))


BASE = np.arange(60, dtype="i4").reshape(3, 4, 5)
VIEWS = {
    "negative strides": BASE[::-1, :, ::-2],
    "every other": BASE[:, ::2, 1::3],
    "transposed": BASE.transpose(2, 0, 1),
    "broadcast": np.broadcast_to(BASE[:1], (7, 4, 5)),
    "F order": np.asfortranarray(BASE),
    "F order of bfloat16": np.asfortranarray(np.ones((2, 3)).astype(ml_dtypes.bfloat16)),
    "window": np.lib.stride_tricks.sliding_window_view(BASE, 2, axis=1),
    "read-only": np.frombuffer(b"abcdefgh", "u2"),
    "one column": BASE[:, 1:2, 0],
}


@pytest.mark.parametrize("array", VIEWS.values(), ids=VIEWS)
def test_view_arrives_as_its_elements(array: Any) -> None:
    assert same(back(array), np.asarray(array))


def test_order_of_axes_in_memory_is_kept() -> None:
    assert back(np.asfortranarray(BASE)).flags.f_contiguous
    assert back(BASE).flags.c_contiguous


@given(
    st.sampled_from(sorted(NATIVE_DTYPES)),
    st.lists(st.integers(0, 4), max_size=4),
    st.lists(st.tuples(st.none() | st.integers(-4, 4), st.sampled_from([None, -2, -1, 1, 2])), max_size=4),
    st.booleans(),
)
def test_any_slice_of_any_array_arrives(name: str, shape: list[int], slices: list[Any], fortran: bool) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(name)
    array = np.asfortranarray(array) if fortran else array
    view = array[(..., *(slice(start, None, step) for start, step in slices[: len(shape)]))]
    assert same(back(view), view)


def test_what_arrives_can_be_written_to_and_is_nobody_elses() -> None:
    sent = np.zeros((2, 2), "f4")
    data = CODEC.encode(sent)
    first = CODEC.decode(data)
    first[0, 0] = 7
    assert CODEC.decode(data)[0, 0] == 0
    assert sent[0, 0] == 0


class Named(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([object()]), "Python objects"),
        (np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]), "Python objects"),
        (np.ma.masked_array([1, 2], mask=[0, 1]), "MaskedArray"),
        (np.zeros(2).view(np.recarray), "recarray"),
        (np.zeros(2).view(Named), "Named"),
        (np.ones(2).astype(ml_dtypes.int4), "int4"),
        (np.zeros(3, "V0"), "void"),
    ],
    ids=lambda each: str(type(each)),
)
def test_array_that_is_more_than_its_elements_is_refused(array: Any, said: str) -> None:
    with pytest.raises(ValueUnsupported, match=said) as caught:
        CODEC.encode({"x": [array]})
    assert "value['x'][0]" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(1.5), np.float64(2.5), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True), np.complex64(1 + 2j),
        np.str_("é"), np.bytes_(b"ab"), np.datetime64("2026-01-02"), np.timedelta64(5, "s"), np.float16(0.5),
        ml_dtypes.bfloat16(1.5), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])[0],
    ],
    ids=lambda scalar: type(scalar).__name__,
)  # fmt: skip
def test_scalar_keeps_its_type(scalar: Any) -> None:
    assert same(back([scalar]), [scalar])


@pytest.mark.parametrize(
    "dtype",
    [np.dtype("f4"), np.dtype(">i2"), np.dtype("U7"), np.dtype([("a", "i4")]), np.dtype(ml_dtypes.bfloat16)],
    ids=str,
)
def test_dtype_arrives(dtype: Any) -> None:
    assert back(dtype) == dtype


def test_scalar_of_more_than_one_element_is_refused() -> None:
    with pytest.raises(ValueInvalid):
        back(Opaque("numpy.scalar", ["uint8", b"ab"]))


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("numpy.scalar", "ab"), ("numpy.scalar", ["uint8", "a"]), ("numpy.scalar", ["uint8"]), ("numpy.dtype", 5),
        ("numpy.dtype", ["f4"]), ("torch.dtype", "save"), ("torch.dtype", ["float32"]), ("torch.dtype", "__name__"),
        ("torch.device", 0), ("torch.device", "no such device"), ("torch.Size", 5), ("torch.Size", [1.5]),
    ],
)  # fmt: skip
def test_named_state_that_makes_no_sense_is_refused(name: str, state: Any) -> None:
    with pytest.raises(ValueInvalid):
        rebuild_named(name, state)


@pytest.mark.parametrize("shape", [[2**62] * 65, [2**63, 0], [0] * 65], ids=["many", "long", "many empty"])
def test_shape_that_no_array_has_is_refused_before_it_is_multiplied(shape: list[int]) -> None:
    with pytest.raises(ValueInvalid, match="malformed"):
        rebuild(["ndarray", "uint8", shape, "C", b""])


@pytest.mark.parametrize("value", [None, 0, [], (1,), np.float32(1)], ids=repr)
def test_marked_value_that_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(ValueUnsupported, match="marked as a tensor"):
        CODEC.encode(AsTensor(value))


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(
        "comfy_airlock.wire.arrays.installed", lambda name: None if name in names else sys.modules[name]
    )


def test_tensor_arrives_as_an_array_where_torch_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    arrived = back(AsTensor(BASE))
    assert same(arrived, BASE)


def test_bfloat16_without_ml_dtypes_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = CODEC.encode(AsTensor(np.ones(2).astype(ml_dtypes.bfloat16)))
    without(monkeypatch, "torch", "ml_dtypes")
    with pytest.raises(ValueInvalid, match="bfloat16") as caught:
        CODEC.decode(data)
    assert "add ml_dtypes" in (caught.value.hint or "")


def test_array_without_numpy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = CODEC.encode([BASE])
    without(monkeypatch, "numpy")
    with pytest.raises(ValueInvalid, match="numpy is not installed") as caught:
        CODEC.decode(data)
    assert "add numpy" in (caught.value.hint or "")
