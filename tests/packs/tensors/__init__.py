"""Nodes that check, keep, pass on and make arrays: for the soak, in which their workers are killed at any moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from comfy_airlock import share
from comfy_airlock.runtime import host_link

from .contents import check, make


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"
    kept: list[tuple[Any, int, int]] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class Take(_Node):
    """Checks an array when it comes, and again before it goes."""

    def run(self, array: Any, seed: int, size: int, seconds: float = 0.0, plus: int = 0) -> tuple[int]:
        check(array - plus if plus else array, seed, size, "as a worker receives it")
        time.sleep(seconds)
        check(array - plus if plus else array, seed, size, "as a worker drops it")
        return (os.getpid(),)


class Echo(_Node):
    """Answers what it was given, as it is."""

    def run(self, array: Any, seed: int, size: int) -> tuple[Any]:
        check(array, seed, size, "as a worker receives it")
        return (array,)


class EchoAll(_Node):
    def run(self, arrays: list[Any], seeds: list[int], sizes: list[int]) -> tuple[list[Any]]:
        for array, seed, size in zip(arrays, seeds, sizes, strict=True):
            check(array, seed, size, "as a worker receives it with others")
        return (arrays[::-1],)


class Edit(_Node):
    """Writes to what it was given, and answers that."""

    def run(self, array: Any, seed: int, size: int) -> tuple[Any]:
        check(array, seed, size, "as a worker receives it to write to")
        array += 1
        return (array,)


class Make(_Node):
    """A new array, and whose it is."""

    def run(self, seed: int, size: int, is_shared: bool = False) -> tuple[Any, int]:
        array = make(seed, size)
        return (share(array) if is_shared else array, os.getpid())


class MakeAndDie(_Node):
    """A new array, of a worker that is gone as soon as it has answered, or sooner."""

    def run(self, seed: int, size: int, seconds: float) -> tuple[Any]:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return (make(seed, size),)


class Keep(_Node):
    """Keeps an array between calls, and looks at the others that it keeps."""

    def run(self, array: Any, seed: int, size: int) -> tuple[int]:
        check(array, seed, size, "as a worker receives it to keep")
        for kept in self.kept:
            check(*kept, "as a worker keeps it")
        self.kept.append((array, seed, size))
        del self.kept[:-3]
        return (len(self.kept),)


class Forget(_Node):
    def run(self) -> tuple[int]:
        for kept in self.kept:
            check(*kept, "as a worker drops what it kept")
        self.kept.clear()
        return (os.getpid(),)


class Stream(_Node):
    """Arrays that its host takes one after the other."""

    def run(self, seed: int, size: int, count: int) -> tuple[Iterator[Any]]:
        return (iter([make(seed + index, size) for index in range(count)]),)


class Ask(_Node):
    """Passes an array to a function of the host's, which answers it."""

    def run(self, function: Callable[[Any], Any], seed: int, size: int) -> tuple[Any]:
        array = function(make(seed, size))
        check(array, seed, size, "as a worker is answered it by its host")
        return (array,)


class Report(_Node):
    """What this worker shares and holds, which only its server is told otherwise."""

    def run(self) -> tuple[dict[str, int]]:
        leases = host_link._host().arrays._open()
        return ({} if leases is None else leases.memory.report(),)


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls for cls in (Take, Echo, EchoAll, Edit, Make, MakeAndDie, Keep, Forget, Stream, Ask, Report)
}
