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


def on_fresh(act: Callable[[Any], Any], original: Any, times: int, warm_up: int = 2) -> float:
    """As :func:`milliseconds`, each time on a tensor that nobody has sent before."""
    took: list[float] = []
    for _ in range(times + warm_up):
        fresh = original.clone()
        took.append(milliseconds(lambda tensor=fresh: act(tensor), 1, 0))
        del fresh
    return statistics.median(took[warm_up:])


def image_figures(invert: Callable[[Any], Any], first: Callable[[Any], float], rounds: int) -> dict[str, float]:
    """An image there and back, beside the same in this process; and a GiB."""
    image = torch.rand(1, 1024, 1024, 4)
    if not torch.equal(invert(image), 1.0 - image):
        raise SystemExit("an image came back as another")
    figures = {
        "16 MiB image, 1.0 - image, ms": on_fresh(invert, image, 30 if rounds > 1 else 2),
        "the same in process, ms": on_fresh(lambda tensor: 1.0 - tensor, image, 30),
    }
    if rounds > 1:
        big, target = torch.ones(GIB // 4), torch.ones(GIB // 4)
        figures["1 GiB in, first time, ms"] = on_fresh(first, big, 1, 0)
        # In turns: what else the machine does meanwhile is done to both.
        copies, calls, inside, inverted = [], [], [], []
        for _ in range(rounds + 2):
            copies.append(milliseconds(lambda: target.copy_(big), 1, 0))
            calls.append(on_fresh(first, big, 1, 0))
        del target
        for _ in range(rounds):
            inside.append(on_fresh(lambda tensor: 1.0 - tensor, big, 1, 0))
            inverted.append(on_fresh(invert, big, 1, 0))
        figures["1 GiB in, ms"] = statistics.median(calls[2:])
        figures["a warm memcpy of it, ms"] = statistics.median(copies[2:])
        figures["1 GiB in, of that memcpy"] = figures["1 GiB in, ms"] / figures["a warm memcpy of it, ms"]
        figures["1 GiB, 1.0 - t, ms"] = statistics.median(inverted)
        figures["1 GiB in process, ms"] = statistics.median(inside)
        figures["1 GiB, 1.0 - t, of in process"] = figures["1 GiB, 1.0 - t, ms"] / figures["1 GiB in process, ms"]
    return figures
