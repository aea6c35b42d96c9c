"""Enums, dataclasses and named tuples: rebuilt as their class where it is loaded, and without running its code."""

from __future__ import annotations

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum, IntFlag
from typing import Any, NamedTuple

import pytest

from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ValueInvalid, ValueUnsupported
from comfy_airlock.wire.registry import Opaque

CODEC = Codec()
RAN: list[str] = []


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
    [Level.LOW, Text.A, Mode.R, Mode.RW, Mode(0), Bits.X | Bits.Y, Bits(64), Alias.UNO],
    ids=repr,
)
def test_enum_member_arrives_as_the_same_object(value: Any) -> None:
    assert back(value) is value or (back(value) == value and type(back(value)) is type(value))


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


def test_class_made_inside_a_function_stays_opaque() -> None:
    @dataclass
    class Local:
        a: int

    assert type(back(Local(1))) is Opaque
