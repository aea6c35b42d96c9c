"""Bodies that wait to be decoded: a release waits for those before it alone, and a flood of them costs no more each."""

from __future__ import annotations

from typing import Any
from weakref import ref

import pytest

from comfy_airlock.calls.undecoded import UndecodedBodies
from comfy_airlock.wire.laden import LadenBody


def test_release_waits_for_the_bodies_before_it_and_for_no_others() -> None:
    bodies = UndecodedBodies()
    assert bodies.are_gone(bodies.last)
    first, second = bodies.hold(b"1"), bodies.hold(b"2")
    before = bodies.last
    third = bodies.hold(b"3")
    del first
    assert not bodies.are_gone(before)
    del second
    assert bodies.are_gone(before)
    assert not bodies.are_gone(bodies.last)
    assert third == b"3"


class Looks:
    """A weak reference's type that counts how often one is looked through."""

    def __init__(self) -> None:
        self.count = 0
        looks = self

        class Counted(ref[LadenBody]):
            def __call__(self) -> Any:
                looks.count += 1
                return super().__call__()

        self.ref = Counted


def test_flood_of_bodies_costs_the_same_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, count = Looks(), 50_000
    monkeypatch.setattr("comfy_airlock.calls.undecoded.ref", looks.ref)
    bodies = UndecodedBodies()
    flood = [bodies.hold(b"body") for _ in range(count)]
    # Releases among them look at the first alone.
    assert not any(bodies.are_gone(bodies.last) for _ in range(1000))
    assert looks.count < 4 * count
    flood.clear()
    assert bodies.are_gone(bodies.last)
    assert looks.count < 6 * count


def test_one_body_that_stays_keeps_nothing_of_those_that_are_gone() -> None:
    bodies = UndecodedBodies()
    stays = bodies.hold(b"stays")
    for _ in range(10_000):
        bodies.hold(b"goes")
    assert len(bodies._bodies) < 1000
    assert not bodies.are_gone(bodies.last)
    assert stays
