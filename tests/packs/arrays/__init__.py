"""Nodes for tests that compute with numpy."""

import gc
import os
from typing import Any

import numpy


class Invert:
    RETURN_TYPES = ("IMAGE", "STRING")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image: Any) -> tuple[Any, str]:
        return (1.0 - image, f"{type(image).__module__} {numpy.__version__}")


class Echo:
    """Answers the value, with what it is here."""

    RETURN_TYPES = ("*", "STRING")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("*",)}}

    def run(self, value: Any) -> tuple[Any, str]:
        return (value, f"{type(value).__module__}.{type(value).__name__} {getattr(value, 'dtype', '')}")


class EditInPlace:
    """Writes to what it was given."""

    RETURN_TYPES = ("*",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("*",)}}

    def run(self, value: Any) -> tuple[Any]:
        value[...] = 7
        return (value,)


class Hold:
    """Keeps what it is given, in a cycle of which nothing else knows where that is asked for."""

    RETURN_TYPES = ("*",)
    FUNCTION = "run"
    held: list[Any] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("*",)}}

    def run(self, value: Any, in_cycle: bool = False) -> tuple[int]:
        if in_cycle:
            gc.disable()
            cycle = [value]
            cycle.append(cycle)
        else:
            self.held.append(value)
        return (len(self.held),)


class Drop:
    """Drops what is kept; answers what it sums up to."""

    RETURN_TYPES = ("*",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def run(self) -> tuple[int]:
        total = sum(int(numpy.asarray(each).sum()) for each in Hold.held)
        Hold.held.clear()
        return (total,)


class Peek:
    """Some elements."""

    RETURN_TYPES = ("*",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("*",)}}

    def run(self, value: Any, at: list[int]) -> tuple[list[int]]:
        return ([int(value[each]) for each in at],)


class Make:
    """An array of so many bytes, of one value; this process may end at once after it was sent."""

    RETURN_TYPES = ("*", "INT")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"size": ("INT",), "of": ("INT",)}}

    def run(self, size: int, of: int) -> tuple[Any, int]:
        return (numpy.full(size, of, "u1"), os.getpid())


NODE_CLASS_MAPPINGS = {each.__name__: each for each in (Invert, Echo, EditInPlace, Hold, Drop, Peek, Make)}
