"""Times what is done with tensors, for every contender alike: warm up, then the median of each."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

GIB = 1 << 30
_SECONDS_MAX = 20.0


def milliseconds(act: Callable[[], Any], times: int, warm_up: int = 2) -> float:
    """The median of so many times, or of as many as fit into 20 s."""
    for _ in range(warm_up):
        act()
    took: list[float] = []
    until = time.perf_counter() + _SECONDS_MAX
    while len(took) < times and (not took or time.perf_counter() < until):
        start = time.perf_counter()
        act()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1000


def image_figures(invert: Callable[[Any], Any], first: Callable[[Any], float], rounds: int) -> dict[str, float]:
    """An image there and back, beside the same in this process; and a GiB."""
    image = torch.rand(1, 1024, 1024, 4)
    if not torch.equal(invert(image), 1.0 - image):
        raise SystemExit("an image came back as another")
    figures = {
        "16 MiB image, 1.0 - image, ms": milliseconds(lambda: invert(image), 30 if rounds > 1 else 2),
        "the same in process, ms": milliseconds(lambda: 1.0 - image, 30),
    }
    if rounds > 1:
        big, target = torch.ones(GIB // 4), torch.ones(GIB // 4)
        start = time.perf_counter()
        first(big)
        figures["1 GiB in, first time, ms"] = (time.perf_counter() - start) * 1000
        # In turns: what else the machine does meanwhile is done to both.
        copies, calls = [], []
        for _ in range(rounds + 2):
            copies.append(milliseconds(lambda: target.copy_(big), 1, 0))
            calls.append(milliseconds(lambda: first(big), 1, 0))
        figures["1 GiB in, ms"] = statistics.median(calls[2:])
        figures["a warm memcpy of it, ms"] = statistics.median(copies[2:])
        del target
        inside, inverted = [], []
        for _ in range(rounds):
            inside.append(milliseconds(lambda: 1.0 - big, 1, 0))
            inverted.append(milliseconds(lambda: invert(big), 1, 0))
        figures["1 GiB, 1.0 - t, ms"] = statistics.median(inverted)
        figures["1 GiB in process, ms"] = statistics.median(inside)
    return figures
