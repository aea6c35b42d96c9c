"""Nodes that exchange functions, objects and streams with their host: none of it knows that a process lies between."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

RETURNED: list[weakref.ref[Any]] = []


class Model:
    """An object that has no form of its own."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self._secret = "kept"

    def scaled(self, by: int, *, plus: int = 0) -> int:
        return self.layers * by + plus


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"
    CATEGORY = "exchange"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class Call(_Node):
    """Calls a function of the host's."""

    def run(self, function: Callable[..., Any], args: list[Any], keywords: dict[str, Any]) -> tuple[Any]:
        return (function(*args, **keywords),)


class CallWithCallback(_Node):
    """Calls a function of the host's with one of its own, which calls the host again."""

    def run(self, function: Callable[..., Any]) -> tuple[Any]:
        return (function(lambda back: f"worker({back('x')})"),)


class MakeFunction(_Node):
    def run(self, plus: int) -> tuple[Any]:
        def add(value: int, *, times: int = 1) -> int:
            return (value + plus) * times

        RETURNED.append(weakref.ref(add))
        return (add,)


class MakeModel(_Node):
    def run(self, layers: int) -> tuple[Any]:
        model = Model(layers)
        RETURNED.append(weakref.ref(model))
        return (model,)


class UseModel(_Node):
    """Whether it is this process's own, and what it says."""

    def run(self, model: Any) -> tuple[bool, int]:
        return (isinstance(model, Model), model.layers)


class Count(_Node):
    """A stream of numbers."""

    def run(self, count: int) -> tuple[Iterator[int]]:
        return (iter(list(range(count))),)


class Sum(_Node):
    """Reads a stream of the host's."""

    def run(self, stream: Iterable[int]) -> tuple[int]:
        return (sum(stream),)


class Returned(_Node):
    """How many of the objects that were returned so far are still there."""

    def run(self) -> tuple[int]:
        gc.collect()
        return (sum(reference() is not None for reference in RETURNED),)


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls for cls in (Call, CallWithCallback, MakeFunction, MakeModel, UseModel, Count, Sum, Returned)
}
