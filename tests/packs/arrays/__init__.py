"""Nodes for tests that compute with numpy."""

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


NODE_CLASS_MAPPINGS = {"Invert": Invert, "Echo": Echo, "EditInPlace": EditInPlace}
