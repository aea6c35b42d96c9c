"""Registered types, values that pass through unknown, and pickle by name."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest
from hypothesis import given

from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import BadRequest, ValueInvalid, ValueUnsupported
from comfy_airlock.wire.registry import Opaque, Registry, allow_pickle, register
from strategies import values


class Mesh:
    def __init__(self, points: list[Any]) -> None:
        self.points = points


class Other:
    pass


class SubMesh(Mesh):
    pass


class Pickled:
    def __init__(self, inner: Any) -> None:
        self.inner = inner


class AlsoPickled(Pickled):
    pass


def registry_with_mesh() -> Registry:
    registry = Registry()
    registry.add(Mesh, "tests.Mesh", lambda mesh: mesh.points, Mesh)
    return registry


def test_registered_type_crosses_as_itself() -> None:
    codec = Codec(registry_with_mesh())
    back = codec.decode(codec.encode([Mesh([1, (2, 3)])]))[0]
    assert type(back) is Mesh
    assert back.points == [1, (2, 3)]


def test_subclass_of_a_registered_type_needs_its_own_registration() -> None:
    with pytest.raises(ValueUnsupported, match="SubMesh"):
        Codec(registry_with_mesh()).encode(SubMesh([]))


def test_registering_twice_under_one_name_takes_the_later() -> None:
    registry = registry_with_mesh()
    registry.add(Mesh, "tests.Mesh", lambda mesh: None, lambda state: Mesh(["later"]))
    codec = Codec(registry)
    assert codec.decode(codec.encode(Mesh([1]))).points == ["later"]


def test_type_made_again_by_a_second_import_takes_the_name_over() -> None:
    registry = registry_with_mesh()
    again = type("Mesh", (), {"__module__": Mesh.__module__, "__qualname__": "Mesh"})
    registry.add(again, "tests.Mesh", lambda mesh: 1, lambda state: again())
    codec = Codec(registry)
    assert type(codec.decode(codec.encode(again()))) is again


def test_name_or_type_taken_by_another_is_refused() -> None:
    registry = registry_with_mesh()
    with pytest.raises(BadRequest, match="tests.Mesh"):
        registry.add(Other, "tests.Mesh", lambda _: None, lambda _: None)
    with pytest.raises(BadRequest, match="tests.Mesh"):
        registry.add(Mesh, "tests.Different", lambda _: None, lambda _: None)


def test_name_without_a_dot_is_airlocks_own() -> None:
    with pytest.raises(BadRequest, match="no dot"):
        register(Other, "Other", lambda _: None, lambda _: None)


def test_unknown_type_is_opaque_and_says_so() -> None:
    sent = Codec(registry_with_mesh()).encode(Mesh([1]))
    back = Codec(Registry()).decode(sent)
    assert type(back) is Opaque
    assert (back.name, back.state) == ("tests.Mesh", [1])
    assert "tests.Mesh" in repr(back)


@given(values)
def test_opaque_passes_on_byte_for_byte(state: Any) -> None:
    registry = Registry()
    registry.add(Mesh, "tests.Mesh", lambda mesh: mesh.points, Mesh)
    # Sets go by their own order, so what is passed on is compared after one pass.
    middle = Codec(Registry())
    sent = middle.encode(middle.decode(Codec(registry).encode(Mesh([state]))))
    assert len(sent) == len(Codec(registry).encode(Mesh([state])))
    assert type(Codec(registry).decode(sent)) is Mesh


def test_opaque_of_ordered_state_passes_on_byte_for_byte() -> None:
    sent = Codec(registry_with_mesh()).encode(Mesh([1, (2.0, b"x"), {"k": None}, 2**70]))
    middle = Codec(Registry())
    assert middle.encode(middle.decode(sent)) == sent


def test_pickle_is_refused_until_the_type_is_allowed() -> None:
    with pytest.raises(ValueUnsupported):
        Codec().encode(Pickled(1))


def test_allowed_types_cross_by_pickle_and_others_inside_them_do_not() -> None:
    allow_pickle(Pickled)
    allow_pickle(AlsoPickled)
    codec = Codec()
    assert codec.decode(codec.encode(Pickled([1, {"a": (2,)}]))).inner == [1, {"a": (2,)}]
    assert type(codec.decode(codec.encode(Pickled(AlsoPickled(1)))).inner) is AlsoPickled
    with pytest.raises(ValueInvalid, match="Other.* was not allowed"):
        codec.decode(codec.encode(Pickled(Other())))


class Evil:
    def __reduce__(self) -> Any:
        return os.getenv, ("PATH",)


@pytest.mark.parametrize("state", [pickle.dumps(Evil()), b"", b"garbage", pickle.dumps(eval), "text", None])
def test_hostile_pickle_is_refused(state: Any) -> None:
    allow_pickle(Pickled)
    name = f"pickle.{Pickled.__module__}.Pickled"
    with pytest.raises(ValueInvalid):
        Codec().decode(Codec(Registry()).encode(Opaque(name, state)))


def test_pickle_cannot_walk_from_an_allowed_class_to_what_lies_behind_it() -> None:
    allow_pickle(Pickled)
    # STACK_GLOBAL of a dotted name, which would reach the class's functions and their globals.
    walk = b"\x80\x04\x8c" + bytes([len(__name__)]) + __name__.encode() + b"\x8c\x16Pickled.__init__.x1234\x93."
    with pytest.raises(ValueInvalid):
        Codec().decode(Codec(Registry()).encode(Opaque(f"pickle.{Pickled.__module__}.Pickled", walk)))
