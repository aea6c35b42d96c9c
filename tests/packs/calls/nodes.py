"""The nodes. Each takes what its test gives it; types are ANY throughout."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import comfy_airlock

SECONDS_MAX = 20


class Thing:
    """An object that only this pack has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ties: list[Any] = []
        self._secret = "of the pack's own"

    def greet(self, whom: str, mark: str = "!") -> str:
        return f"{self.name} greets {whom}{mark}"

    def fail(self) -> None:
        raise LookupError(f"{self.name} has nothing")

    def itself(self) -> Thing:
        return self


class Holder:
    """What nodes keep between calls."""

    made: weakref.WeakSet[Thing] = weakref.WeakSet()
    held: list[Any] = []
    events: list[Any] = []
    produced = 0
    closed = 0


def _hear(value: Any) -> None:
    Holder.events.append(value)
    comfy_airlock.emit("echo", value)


def _quietly(function: Callable[..., Any], *args: Any) -> None:
    try:
        function(*args)
    except Exception:
        pass


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"
    CATEGORY = "calls"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {"value": ("*",)}}


class Echo(_Node):
    def run(self, value: Any = None) -> tuple[Any]:
        return (value,)


class AsyncEcho(_Node):
    async def run(self, value: Any = None, seconds: float = 0.0) -> tuple[Any]:
        await asyncio.sleep(seconds)
        return (value,)


class Raise(_Node):
    def run(self, message: str) -> tuple[()]:
        raise KeyError(message)


class Call(_Node):
    """Calls a function, ``times`` times; answers what it returned last."""

    def run(self, function: Callable[..., Any], args: list[Any], times: int = 1) -> tuple[Any]:
        for _ in range(times):
            result = function(*args)
        return (result,)


class AwaitCall(_Node):
    async def run(self, function: Any, args: list[Any]) -> tuple[Any]:
        return (await function.acall(*args),)


class CallLater(_Node):
    """Calls a function on a thread of its own, once nobody waits for this node any more."""

    def run(self, function: Callable[..., Any], args: list[Any]) -> tuple[()]:
        threading.Timer(0.05, _quietly, [function, *args]).start()
        return ()


class Descend(_Node):
    """Calls a function with one less until it is at zero; the function is to call this node again."""

    def run(self, function: Callable[..., Any], depth: int) -> tuple[int]:
        return (0 if depth == 0 else 1 + function(depth - 1),)


class MakeThing(_Node):
    def run(self, name: str = "thing") -> tuple[Thing]:
        thing = Thing(name)
        Holder.made.add(thing)
        return (thing,)


class Tie(_Node):
    """Has a thing hold a value, in one of several ways."""

    def run(self, thing: Thing, value: Any, how: str = "attribute") -> tuple[()]:
        ways: dict[str, Callable[[], Any]] = {
            "attribute": lambda: value,
            "list": lambda: [[value]],
            "dict": lambda: {"value": {1: value}},
            "closure": lambda: lambda: value,
            "method": lambda: _Keeper(value).get,
            "generator": lambda: _suspended(value),
        }
        thing.ties.append(ways[how]())
        return ()


class _Keeper:
    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value


def _suspended(value: Any) -> Iterator[Any]:
    def hold() -> Iterator[Any]:
        held = value
        yield
        yield held

    running = hold()
    next(running)
    return running


class IsThing(_Node):
    def run(self, value: Any) -> tuple[bool]:
        return (isinstance(value, Thing),)


class CountThings(_Node):
    def run(self) -> tuple[int]:
        gc.collect()
        return (len(Holder.made),)


class Hold(_Node):
    def run(self, value: Any) -> tuple[int]:
        Holder.held.append(value)
        return (len(Holder.held),)


class TakeHeld(_Node):
    def run(self) -> tuple[Any]:
        held, Holder.held = Holder.held, []
        return (held,)


class ReadName(_Node):
    """Uses an object as its owner would."""

    def run(self, value: Any) -> tuple[Any]:
        return (value.name,)


class ReadSecret(_Node):
    def run(self, value: Any) -> tuple[Any]:
        # Past the stand-in's own check of the name.
        return (value._handle.call("ref_get", "_secret"),)


class Count(_Node):
    """A generator that notes how far it was run."""

    def run(self, stop: int, fail_at: int = -1, bytes_each: int = 0) -> tuple[Iterator[Any]]:
        return (self._count(stop, fail_at, bytes_each),)

    def _count(self, stop: int, fail_at: int, bytes_each: int) -> Iterator[Any]:
        Holder.produced = 0
        try:
            for number in range(stop):
                if number == fail_at:
                    raise ValueError(f"failed at {number}")
                Holder.produced += 1
                yield bytes(bytes_each) if bytes_each else number
        finally:
            Holder.closed += 1


class CountSlowly(_Node):
    def run(self, stop: int, seconds: float) -> tuple[AsyncIterator[int]]:
        return (self._count(stop, seconds),)

    async def _count(self, stop: int, seconds: float) -> AsyncIterator[int]:
        for number in range(stop):
            await asyncio.sleep(seconds)
            yield number


class Produced(_Node):
    def run(self) -> tuple[int, int]:
        return (Holder.produced, Holder.closed)


class Sum(_Node):
    def run(self, numbers: Iterator[int]) -> tuple[int]:
        return (sum(numbers),)


class AsyncSum(_Node):
    async def run(self, numbers: AsyncIterator[int]) -> tuple[int]:
        total = 0
        async for number in numbers:
            total += number
        return (total,)


class Report(_Node):
    def run(self, steps: int) -> tuple[()]:
        for step in range(1, steps + 1):
            comfy_airlock.report_progress(step, steps, f"step {step}")
        return ()


class Emit(_Node):
    def run(self, values: list[Any]) -> tuple[()]:
        for value in values:
            comfy_airlock.emit("told", value)
        return ()


class Listen(_Node):
    def run(self) -> tuple[()]:
        comfy_airlock.on("asked", _hear)
        return ()


class UntilCancelled(_Node):
    """Computes until nobody waits any more, and tells so."""

    def run(self, value: Any = None) -> tuple[str]:
        del value
        comfy_airlock.emit("began", None)
        until = time.monotonic() + SECONDS_MAX
        while not comfy_airlock.cancelled():
            if time.monotonic() > until:
                raise TimeoutError("nobody cancelled")
            time.sleep(0.005)
        comfy_airlock.emit("stopped", None)
        comfy_airlock.check_cancelled()
        raise AssertionError("a cancelled call goes on")


class End(_Node):
    def run(self, function: Callable[[], Any]) -> tuple[()]:
        function()
        os._exit(3)


class Exchange(_Node):
    """Calls a function with so many characters, and returns as many."""

    def run(self, function: Callable[[str], int], count: int) -> tuple[int, str]:
        return (function(count * "x"), count * "x")


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (
        Echo, AsyncEcho, Raise, Call, AwaitCall, CallLater, Descend, MakeThing, Tie, IsThing, CountThings, Hold,
        TakeHeld, ReadName, ReadSecret, Count, CountSlowly, Produced, Sum, AsyncSum, Report, Emit, Listen,
        UntilCancelled, End, Exchange,
    )
}  # fmt: skip
