"""Golden vectors of values with references: a table that gives out and takes the references themselves."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_airlock import Opaque
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import ValueInvalid
from comfy_airlock.wire.reference import Reference
from vectors import load, unhex

CASES = load("references.json")


class Held:
    """An object that has no form of its own, and is known by its reference."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference


class Table:
    """Keeps nothing."""

    unsettled = ()

    def describe(self, value: Any) -> Reference | None:
        return value.reference if isinstance(value, Held) else None

    def settle(self) -> list[int] | None:
        return None

    def revert(self, receipts: list[int] | None) -> None:
        del receipts

    def restore(self, reference: Reference) -> Any:
        return Held(reference)


CODEC = Codec(references=Table())


def build(description: Any) -> Any:
    """The value described, with :class:`Held` for references."""
    if not isinstance(description, dict):
        return description
    ((kind, content),) = description.items()
    if kind == "reference":
        return Held(Reference(int(content["id"]), content.get("kind"), content.get("type")))
    if kind == "int":
        return int(content)
    if kind == "dict":
        return {build(key): build(item) for key, item in content}
    if kind == "named":
        return Opaque(content["name"], build(content["state"]))
    return {"list": list, "tuple": tuple, "set": set}[kind](build(item) for item in content)


def named(cases: Any) -> Any:
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.mark.parametrize("case", named(CASES["values"]))
def test_value_with_references_is_written_and_read_as_its_vector(case: dict[str, Any]) -> None:
    value = build(case["value"])
    assert CODEC.encode(value).hex() == unhex(case["hex"]).hex()
    for form in ("hex", "typescript_hex"):
        if form in case:
            # Told by what it is written as: a type that is unknown here equals nothing but itself.
            assert CODEC.encode(CODEC.decode(unhex(case[form]))).hex() == unhex(case["hex"]).hex()


@pytest.mark.parametrize("case", named(CASES["invalid"]))
def test_malformed_reference_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ValueInvalid):
        CODEC.decode(unhex(case["hex"]))
    assert CODEC.decode(CODEC.encode(5)) == 5


@pytest.mark.parametrize("case", named([*CASES["values"], *CASES["invalid"]]))
def test_codec_that_takes_no_references_refuses_them(case: dict[str, Any]) -> None:
    with pytest.raises(ValueInvalid):
        Codec().decode(unhex(case["hex"]))
