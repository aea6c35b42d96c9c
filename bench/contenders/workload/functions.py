"""What workers are asked for, the same functions in every contender's. Imports torch where it is needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def nothing() -> None:
    """An empty call."""


def echo(value: Any) -> Any:
    """Returns what it is given."""
    return value


def take(value: Any) -> None:
    """Takes what it is given, and looks at nothing of it."""


def sleep(seconds: float) -> None:
    """Is at work for so long, and takes nothing."""
    time.sleep(seconds)


def call_back(function: Callable[[Any], Any], value: Any) -> Any:
    """Asks a function of the host's."""
    return function(value)


def items(count: int) -> Iterator[int]:
    """So many numbers, one after the other."""
    yield from range(count)


def first(tensor: Any) -> float:
    """Reads the first element."""
    return tensor.reshape(-1)[0].item()


def invert(image: Any) -> Any:
    """What ComfyUI's ImageInvert does."""
    return 1.0 - image


def make(elements: int) -> Any:
    """A new tensor of float32."""
    import torch

    return torch.ones(elements)


def import_torch() -> str:
    """Has torch imported; its version."""
    import torch

    return str(torch.__version__)


def has_torch() -> bool:
    """Whether something has imported it."""
    return "torch" in sys.modules


FUNCTIONS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (nothing, echo, take, sleep, call_back, items, first, invert, make, import_torch, has_torch)
}
