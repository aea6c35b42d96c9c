"""The codec: what crosses keeps its exact type, what can't is refused by its path, and garbage harms nothing."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from comfy_airlock.wire.registry import Opaque, Registry
from same import same
from strategies import values

CODEC = Codec()


class Unknown:
    pass


class AnyType(str):
    __slots__ = ()


@given(values)
def test_value_comes_back_with_its_types(value: Any) -> None:
    assert same(CODEC.decode(CODEC.encode(value)), value)


@given(values)
def test_encoding_is_the_same_after_a_round_trip(value: Any) -> None:
    once = CODEC.encode(value)
    twice = CODEC.encode(CODEC.decode(once))
    # The order of a set's items is its own.
    assert len(once) == len(twice)
    assert same(CODEC.decode(twice), value)


@given(st.binary(max_size=200))
def test_garbage_raises_value_invalid_at_most(data: bytes) -> None:
    try:
        CODEC.decode(data)
    except ValueInvalid:
        pass
    assert CODEC.decode(CODEC.encode([1, (2,)])) == [1, (2,)]


@given(values, st.data())
def test_spoilt_encoding_raises_value_invalid_at_most(value: Any, data: st.DataObject) -> None:
    spoilt = bytearray(CODEC.encode(value))
    at = data.draw(st.integers(0, len(spoilt) - 1))
    spoilt[at] = data.draw(st.integers(0, 255))
    try:
        CODEC.decode(spoilt)
    except ValueInvalid:
        pass


@given(values, st.integers(1, 50))
def test_encoding_cut_off_is_refused(value: Any, missing: int) -> None:
    data = CODEC.encode(value)
    with pytest.raises(ValueInvalid):
        CODEC.decode(data[: max(0, len(data) - missing)])


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Unknown(), "value: "),
        ([1, Unknown()], "value[1]: "),
        ({"a": [0, {"b": Unknown()}]}, "value['a'][1]['b']: "),
        (((1, (2, Unknown())),), "value[0][1][1]: "),
        ({"f": print}, "value['f']: "),
        ({"names": "a\udc80"}, "value['names']: "),
        ({(1, 2): Unknown()}, "value[(1, 2)]: "),
    ],
)
def test_what_cannot_cross_is_named_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(ValueUnsupported) as caught:
        CODEC.encode(value)
    assert caught.value.message.startswith(path)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    "value", [Unknown(), defaultdict(list), AnyType("*"), object, lambda: 1, iter([]), threading.Lock(), sys]
)
def test_unsupported_type_is_named_with_what_to_do(value: Any) -> None:
    with pytest.raises(ValueUnsupported) as caught:
        CODEC.encode(value)
    assert type(value).__qualname__ in caught.value.message
    assert "comfy_airlock.register" in (caught.value.hint or "")


def test_deeply_nested_fault_is_found_in_no_time() -> None:
    value: Any = Unknown()
    for _ in range(60):
        value = [value]
    with pytest.raises(ValueUnsupported) as caught:
        CODEC.encode(value)
    assert caught.value.message.startswith("value" + "[0]" * 60)


def test_value_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueUnsupported):
        CODEC.encode(circle)
    loop: list[Any] = []
    loop.append((loop,))
    with pytest.raises(ValueUnsupported):
        CODEC.encode(loop)


def nested_tuple(depth: int) -> Any:
    value: Any = "core"
    for _ in range(depth):
        value = (value,)
    return value


@pytest.mark.parametrize("depth", [1, 3, 4, 5, 6, 64])
def test_tuples_nest_up_to_the_limit(depth: int) -> None:
    assert CODEC.decode(CODEC.encode(nested_tuple(depth))) == nested_tuple(depth)


def test_tuples_beyond_the_limit_are_refused_by_the_sender() -> None:
    with pytest.raises(ValueUnsupported, match="nested too deep"):
        CODEC.encode(nested_tuple(65))


def test_bytes_like_values_arrive_as_bytes() -> None:
    for value in (bytearray(b"ab"), memoryview(b"ab")):
        assert same(CODEC.decode(CODEC.encode(value)), b"ab")


def test_fault_of_a_registered_type_is_not_the_connections() -> None:
    registry = Registry()

    def fail(_: Any) -> Any:
        raise RuntimeError("taking apart failed")

    registry.add(Unknown, "t.Unknown", fail, fail)
    codec = Codec(registry)
    with pytest.raises(ValueUnsupported, match=r"value\[0\]: .*taking apart failed"):
        codec.encode([Unknown()])
    with pytest.raises(ValueInvalid, match="taking apart failed"):
        codec.decode(CODEC.encode(Opaque("t.Unknown", None)))


def test_crosses_tells_without_raising() -> None:
    assert CODEC.crosses({"a": (1, 2)})
    assert not CODEC.crosses({"a": Unknown()})
    assert not CODEC.crosses("\udc80")
