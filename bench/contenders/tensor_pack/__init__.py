"""Nodes that tensors are measured with."""

from typing import Any


class _Node:
    RETURN_TYPES = ("*",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class Nothing(_Node):
    """An empty call."""

    def run(self) -> tuple[()]:
        return ()


class First(_Node):
    """Reads the first element."""

    def run(self, tensor: Any) -> tuple[float]:
        return (tensor.reshape(-1)[0].item(),)


class Take(_Node):
    """Takes what it is given."""

    def run(self, value: Any) -> tuple[()]:
        return ()


class Invert(_Node):
    """What ComfyUI's ImageInvert does."""

    def run(self, image: Any) -> tuple[Any]:
        return (1.0 - image,)


class Echo(_Node):
    """Returns what it is given."""

    def run(self, value: Any) -> tuple[Any]:
        return (value,)


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (Nothing, First, Take, Invert, Echo)}
