"""The workload as a node pack: each function is a node of its name, whose one output is what the function returns."""

from __future__ import annotations

from typing import Any

from .functions import FUNCTIONS


class _Node:
    RETURN_TYPES = ("*",)
    FUNCTION = "run"
    NAME = ""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


def _node_of(name: str) -> type[_Node]:
    function = FUNCTIONS[name]

    def run(_self: _Node, **values: Any) -> tuple[Any]:
        return (function(**values),)

    return type(name, (_Node,), {"run": run})


NODE_CLASS_MAPPINGS = {name: _node_of(name) for name in FUNCTIONS}
