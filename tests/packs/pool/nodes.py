"""The nodes. Types are ANY throughout."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy_airlock

SECONDS_MAX = 20


class Thing:
    """An object that stays in the process that made it."""

    def pid(self) -> int:
        return os.getpid()


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"
    CATEGORY = "pool"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {"value": ("*",), "folder": ("*",), "count": ("*",)}}


class Pid(_Node):
    def run(self, value: Any = None) -> tuple[int]:
        del value
        return (os.getpid(),)


class Meet(_Node):
    """Waits until so many calls of this node are under way at once; tells the process that it runs in."""

    def run(self, folder: str, count: int) -> tuple[int]:
        Path(folder, str(os.getpid())).touch()
        until = time.monotonic() + SECONDS_MAX
        while len(list(Path(folder).iterdir())) < count:
            if time.monotonic() > until:
                raise TimeoutError("the others did not come")
            time.sleep(0.005)
        return (os.getpid(),)


class Remember(_Node):
    """Counts its calls in this process."""

    calls = 0

    def run(self) -> tuple[int, int]:
        Remember.calls += 1
        return (os.getpid(), Remember.calls)


class MakeThing(_Node):
    def run(self) -> tuple[Thing, int]:
        return (Thing(), os.getpid())


class UseThing(_Node):
    """Tells whether it was given the object itself, and in which process."""

    def run(self, value: Any) -> tuple[bool, int]:
        given = value[0] if isinstance(value, list) else value
        return (isinstance(given, Thing), os.getpid())


class CallBack(_Node):
    def run(self, function: Callable[[], Any]) -> tuple[Any, int]:
        return (function(), os.getpid())


class Die(_Node):
    """Leaves a mark in a folder, and ends its process where there were fewer than so many before."""

    def run(self, folder: str, count: int = 1, value: Any = None) -> tuple[int]:
        del value
        marks = len(list(Path(folder).iterdir()))
        Path(folder, str(marks)).touch()
        if marks < count:
            os.kill(os.getpid(), signal.SIGKILL)
        return (os.getpid(),)


class DieIdempotent(Die):
    """The same; the manifest says that it may be called again."""


class Listen(_Node):
    """Answers each event by the process that heard it."""

    def run(self) -> tuple[int]:
        comfy_airlock.on("asked", lambda value: comfy_airlock.emit("heard", [value, os.getpid()]))
        return (os.getpid(),)


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (
        Pid, Meet, Remember, MakeThing, UseThing, CallBack, Die, DieIdempotent, Listen,
    )
}  # fmt: skip
