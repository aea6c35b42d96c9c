"""Nodes that keep something between calls, or have others keep it: for tests of when a worker may end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any


class _Node:
    RETURN_TYPES: tuple[str, ...] = ("*",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class Pid(_Node):
    def run(self) -> tuple[int]:
        return (os.getpid(),)


class Count(_Node):
    """Counts its calls, in an attribute."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def run(self) -> tuple[int]:
        self.seen.append(os.getpid())
        return (len(self.seen),)


class Forget(_Node):
    """Counts, and forgets it at once: nothing is kept."""

    def __init__(self) -> None:
        self.count = 0

    def run(self) -> tuple[int]:
        self.count += 1
        counted, self.count = self.count, 0
        return (counted,)


class Length(_Node):
    def run(self, value: Any) -> tuple[int]:
        return (len(value),)


class _Thing:
    def pid(self) -> int:
        return os.getpid()


class Lend(_Node):
    """An object that stays here."""

    def run(self) -> tuple[Any]:
        return (_Thing(),)


class Hold(_Node):
    """Keeps what it is given, where nobody sees it: the reference is all that shows."""

    held: list[Any] = []

    def run(self, value: Any) -> tuple[int]:
        self.held.append(value)
        return (len(self.held),)


class Items(_Node):
    """A stream that its host reads in its own time."""

    def run(self, count: int) -> Any:
        return (self._items(count),)

    def _items(self, count: int) -> Iterator[int]:
        for _ in range(count):
            yield os.getpid()


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (Pid, Count, Forget, Length, Lend, Hold, Items)}
