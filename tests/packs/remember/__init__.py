"""A pack that has its state back after its worker's end; what it does with it is its test's to say."""

from __future__ import annotations

import os
from typing import Any

_STATE: dict[str, Any] = {"sum": 0, "pids": (os.getpid(),)}


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class Add(_Node):
    """Adds to a sum, and answers it with the processes that have."""

    def run(self, value: int) -> tuple[Any, Any]:
        _STATE["sum"] += value
        return (_STATE["sum"], _STATE["pids"])


class AddLater(_Node):
    async def run(self, value: int) -> tuple[Any]:
        _STATE["sum"] += value
        return (_STATE["sum"],)


class Poison(_Node):
    """Has the next worker refuse the state, or die of it, or this one unable to tell it."""

    def run(self, how: str) -> tuple[()]:
        _STATE["poison"] = how
        return ()


class End(_Node):
    def run(self) -> tuple[()]:
        os._exit(3)


def airlock_checkpoint() -> dict[str, Any]:
    if _STATE.get("poison") == "untellable":
        return {"state": object}
    return dict(_STATE)


def airlock_restore(state: dict[str, Any]) -> None:
    if state.get("poison") == "refuse":
        raise ValueError("this is not what I left")
    if state.get("poison") == "die":
        os._exit(4)
    _STATE.update(state, pids=(*state["pids"], os.getpid()))


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (Add, AddLater, Poison, End)}
