"""Enums, dataclasses and named tuples: rebuilt as their class where it is loaded, and without running its code."""

from __future__ import annotations

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum, IntFlag
from fractions import Fraction
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from comfy_airlock.wire.registry import Opaque
from comfy_airlock.wire.standard_types import rebuild_for
from strategies import values

CODEC = Codec()
RAN: list[str] = []
NAMES = [
    "datetime", "date", "time", "timedelta", "path", "purepath", "uuid", "decimal", "fraction", "ordereddict", "range",
    "slice", "ellipsis", "enum", "dataclass", "namedtuple",
]  # fmt: skip


class Level(IntEnum):
    LOW = 1


class Text(str, Enum):
    A = "a"


class Mode(Flag):
    R = 1
    W = 2
    RW = 3


class Bits(IntFlag):
    X = 1
    Y = 4


class Own(Flag):
    A = 1
    B = 2

    @classmethod
    def _missing_(cls, value: object) -> Any:
        RAN.append("missing")
        return super()._missing_(value)


class Alias(Enum):
    ONE = 1
    UNO = 1


@dataclass
class Plain:
    a: int
    b: list[int] = field(default_factory=list)
    hidden: int = field(default=5, init=False, repr=False)

    def __post_init__(self) -> None:
        RAN.append("post_init")


@dataclass(frozen=True)
class Frozen:
    a: int

    @dataclass
    class Inner:
        x: int


@dataclass(slots=True)
class Slotted:
    a: int


@dataclass
class Keyed(OrderedDict):  # type: ignore[type-arg]
    a: int = 1


class Pair(NamedTuple):
    left: Any
    right: Any


Old = namedtuple("Old", "x y")


def back(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


@pytest.mark.parametrize(
    "value",
    [Level.LOW, Text.A, Mode.R, Mode.RW, Mode(0), ~Mode.R, Bits.X | Bits.Y, Bits(64), Alias.UNO],
    ids=repr,
)
def test_enum_member_arrives_as_the_same_object(value: Any) -> None:
    assert back(value) is value or (back(value) == value and type(back(value)) is type(value))


@pytest.mark.parametrize("sent", [Own.A | Own.B, Own(0), ~Own.A], ids=repr)
def test_combination_of_flags_arrives_without_running_the_classs_code(sent: Own) -> None:
    data = CODEC.encode(sent)
    # As in a process that has not made this combination yet.
    for value in set(Own._value2member_map_) - {1, 2}:
        del Own._value2member_map_[value]
    RAN.clear()
    back = CODEC.decode(data)
    assert (type(back), back.value) == (Own, sent.value)
    assert RAN == []


@pytest.mark.parametrize("value", [8, -9, "1", 1.5, None, [], 2**70])
def test_flags_that_the_class_does_not_have_are_refused(value: Any) -> None:
    with pytest.raises(ValueInvalid):
        sent_as("enum", [__name__, "Mode", None, value])


def test_dataclass_arrives_without_running_its_code() -> None:
    sent = Plain(1, [2])
    sent.hidden = 9
    RAN.clear()
    assert back(sent) == sent
    assert RAN == []


@pytest.mark.parametrize("value", [Frozen(3), Frozen.Inner(4)])
def test_frozen_and_nested_dataclasses_arrive(value: Any) -> None:
    assert back(value) == value


def test_dataclass_with_slots_arrives() -> None:
    assert back(Slotted(7)).a == 7


def test_dataclass_may_lack_a_field() -> None:
    value = object.__new__(Plain)
    value.a = 1
    assert not hasattr(back(value), "b")
    assert back(value).a == 1


def test_dataclass_that_is_a_dict_too_is_refused() -> None:
    with pytest.raises(ValueUnsupported, match="Keyed"):
        CODEC.encode(Keyed())


@pytest.mark.parametrize("value", [Pair(1, (2,)), Old(1, 2), Pair(Pair(1, 2), None)])
def test_named_tuple_arrives_as_its_type(value: Any) -> None:
    assert back(value) == value
    assert type(back(value)) is type(value)


def sent_as(name: str, state: Any) -> Any:
    return CODEC.decode(CODEC.encode(Opaque(name, state)))


@pytest.mark.parametrize("name", ["enum", "dataclass", "namedtuple"])
@pytest.mark.parametrize("module", ["antigravity", "a_module_that_does_not_exist", "os.path.nothing"])
def test_class_that_is_not_loaded_stays_opaque_and_nothing_is_imported(name: str, module: str) -> None:
    state: Any = {"enum": [module, "C", "A", 1], "dataclass": [module, "C", {"a": 1}], "namedtuple": [module, "C", [1]]}
    before = set(sys.modules)
    value = sent_as(name, state[name])
    assert type(value) is Opaque
    assert set(sys.modules) == before
    assert CODEC.encode(value) == CODEC.encode(Opaque(name, state[name]))


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("enum", [__name__, "Plain", "A", 1]),
        ("dataclass", [__name__, "Level", {}]),
        ("dataclass", ["builtins", "object", {}]),
        ("namedtuple", ["builtins", "list", []]),
        ("namedtuple", [__name__, "Pair", [1]]),
        ("enum", [__name__, "Plain.__init__.__globals__", "A", 1]),
    ],
)
def test_class_of_another_kind_stays_opaque(name: str, state: Any) -> None:
    assert type(sent_as(name, state)) is Opaque


def test_member_or_field_that_is_not_known_here_is_refused() -> None:
    with pytest.raises(ValueInvalid, match="MEDIUM"):
        sent_as("enum", [__name__, "Level", "MEDIUM", 2])
    with pytest.raises(ValueInvalid, match="zz"):
        sent_as("dataclass", [__name__, "Plain", {"a": 1, "zz": 2}])
    with pytest.raises(ValueInvalid):
        sent_as("dataclass", [__name__, "Plain", {1: 2}])
    with pytest.raises(ValueInvalid):
        sent_as("dataclass", [__name__, "Plain", {"__class__": 2}])


STATES: list[Any] = [
    None, True, 0, 1.5, "", "1e9", "text", b"text", [], {}, (), [1], [1, 2], [1, 2, 3], ["1e9"], [1, 0], [1.5, 2],
    [True, False], [None, None, None], [1, 2, 0], ["a", "b", "c"], [[1, 2, 3]], [[[], 1]], {"a": 1}, "abc", "abcd",
    [__name__, "Mode", "R"], [__name__, "Mode", [], 1], [__name__, "Plain", [1]], [__name__, "Plain", {"a": 1, 2: 3}],
    [__name__, "Pair", "ab"], [__name__, "Pair", {"a": 1, "b": 2}], [__name__, 5, {}], [5, "Plain", {}],
    [2**70, 2**70, 2**70], [10**9, 10**9, 10**9],
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_state_gives_a_value_or_value_invalid(name: str) -> None:
    rebuild = rebuild_for(name)
    assert rebuild is not None
    for state in STATES:
        try:
            value = rebuild(state)
        except ValueInvalid:
            continue
        # What was taken for a state is one: the value can be sent.
        assert CODEC.crosses(value), state


@given(st.sampled_from(NAMES), values)
def test_any_value_as_a_state_gives_a_value_or_value_invalid(name: str, state: Any) -> None:
    rebuild = rebuild_for(name)
    assert rebuild is not None
    try:
        rebuild(state)
    except ValueInvalid:
        pass


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("fraction", ["1e9"]), ("fraction", [1]), ("fraction", [1.5, 1]), ("fraction", [True, 1]), ("fraction", "1/2"),
        ("decimal", 5), ("decimal", [0, [1], 2]), ("range", [1.0, 2, 3]), ("range", [1, 2]), ("timedelta", [0.5, 0, 0]),
        ("ordereddict", {"a": 1}), ("ordereddict", ["ab"]), ("ellipsis", 0), ("uuid", 7), ("path", b"a"),
        ("slice", [1]), ("namedtuple", [__name__, "Pair", "ab"]), ("enum", "abcd"),
        ("dataclass", [__name__, "Plain", []]),
    ],
)  # fmt: skip
def test_state_of_another_form_is_refused(name: str, state: Any) -> None:
    with pytest.raises(ValueInvalid):
        sent_as(name, state)


def test_fraction_of_other_kinds_of_int_crosses() -> None:
    sent = Fraction(numpy.int64(3), numpy.int64(4))  # type: ignore[arg-type]
    assert back(sent) == Fraction(3, 4)


def test_class_made_inside_a_function_stays_opaque() -> None:
    @dataclass
    class Local:
        a: int

    assert type(back(Local(1))) is Opaque
