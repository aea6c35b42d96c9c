"""What counts as something that a node keeps between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comfy_airlock.runtime.node_state import NodeState


class Loader:
    def __init__(self) -> None:
        self.folder = "output"
        self.cache: dict[str, Any] = {}
        self.seen = ["first"]


class Slotted:
    __slots__ = ("value",)


def test_instance_as_it_was_made_keeps_nothing() -> None:
    for instance in (Loader(), Slotted(), object()):
        assert not NodeState(instance).is_kept


@pytest.mark.parametrize(
    "change",
    [
        lambda node: setattr(node, "model", object()),
        lambda node: setattr(node, "folder", "input"),
        lambda node: delattr(node, "folder"),
        lambda node: node.cache.update(key=1),
        lambda node: node.seen.append("second"),
    ],
    ids=["set", "replaced", "deleted", "cached", "listed"],
)
def test_instance_that_a_call_has_changed_keeps_something(change: Callable[[Any], object]) -> None:
    node = Loader()
    state = NodeState(node)
    change(node)
    assert state.is_kept


def test_instance_that_is_as_before_again_keeps_nothing() -> None:
    node = Loader()
    state = NodeState(node)
    node.cache["key"] = 1
    node.cache.clear()
    assert not state.is_kept
