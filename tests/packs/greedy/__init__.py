"""The greedy pack: nodes that take as much as their test says. Tests copy it, with limits of their own."""

from __future__ import annotations

import os
import resource
import time
from typing import Any


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"
    CATEGORY = "greedy"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


def _fork(count: int, leaving: bool = False) -> list[int]:
    """Children that sleep; every other one leaves the process group where they are ``leaving``."""
    children: list[int] = []
    for index in range(count):
        child = os.fork()
        if child == 0:
            if leaving and index % 2:
                os.setsid()
            time.sleep(600)
            os._exit(0)
        children.append(child)
    return children


class Allocate(_Node):
    """Touches so much memory, shares it with so many children, and sleeps."""

    def run(self, size: int, processes: int = 0) -> tuple[int]:
        held = bytearray(b"x") * size
        _fork(processes)
        time.sleep(600)
        return (len(held),)


class Fork(_Node):
    """Starts children, writes their numbers to a file, and sleeps."""

    def run(self, count: int, file: str) -> tuple[()]:
        children = _fork(count, leaving=True)
        with open(file, "w") as written:
            written.write(" ".join(map(str, children)))
        time.sleep(600)
        return ()


class Open(_Node):
    def run(self, count: int) -> tuple[int]:
        return (len([open(os.devnull) for _ in range(count)]),)


class Tell(_Node):
    """The limits that this process finds itself under: open files, core files, CPUs."""

    def run(self) -> tuple[list[int], int, int]:
        core, _ = resource.getrlimit(resource.RLIMIT_CORE)
        return (list(resource.getrlimit(resource.RLIMIT_NOFILE)), core, len(os.sched_getaffinity(0)))


class Sleep(_Node):
    def run(self, seconds: float) -> tuple[float]:
        time.sleep(seconds)
        return (seconds,)


NODE_CLASS_MAPPINGS = {each.__name__: each for each in (Allocate, Fork, Open, Tell, Sleep)}
