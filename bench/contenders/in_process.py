"""What isolation is compared with: the same functions in the host's own process; or, for tensors, one copy in memory.

`python in_process.py SCENARIO PARAMETERS [memcpy]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness import Contender, run
from workload.functions import FUNCTIONS


class InProcess(Contender):
    """Calls functions."""

    def start(self, workers: int, with_torch: bool) -> None:
        """Nothing has to be started."""

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        return FUNCTIONS[function](**values)

    def items(self, count: int) -> Iterator[Any]:
        return self.call("items", count=count)

    def callback(self, function: Callable[[Any], Any]) -> Any:
        return function


class Memcpy(InProcess):
    """Copies each tensor once, to memory that was written to before: the least that a transfer by copy can be."""

    def __init__(self) -> None:
        self._targets: dict[int, Any] = {}

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        if function not in ("first", "invert", "make"):
            return super().call(function, worker, **values)
        import torch

        tensor = values.get("tensor", values.get("image"))
        elements = values["elements"] if tensor is None else tensor.numel()
        if elements not in self._targets:
            self._targets = {elements: (torch.ones(elements), torch.ones(elements))}
        near, far = self._targets[elements]
        if tensor is not None:
            far.copy_(tensor.reshape(-1))
        if function == "first":
            return far[0].item()
        near.copy_(far)
        return near


def chosen(how: str = "call") -> Contender:
    """The one that the command line names."""
    return Memcpy() if how == "memcpy" else InProcess()


if __name__ == "__main__":
    run(chosen)
