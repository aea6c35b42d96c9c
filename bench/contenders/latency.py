"""Times one call after the other, for every contender alike: warm up, then the median of each payload."""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: A small answer, and what ComfyUI passes to a node: a few strings, numbers and a list.
PAYLOADS: dict[str, Any] = {
    "int": 42,
    "node's arguments": {
        "seed": 1234567890,
        "steps": 20,
        "cfg": 7.5,
        "sampler_name": "dpmpp_2m",
        "text": "a cup of coffee on a wooden table, morning light",
        "sigmas": [round(14.6 * 0.8**step, 4) for step in range(20)],
    },
}

#: What a payload may take to be measured: slow contenders make fewer calls.
_NANOSECONDS_MAX = 1_000_000_000


def latency(call: Callable[[Any], Any], calls: int) -> dict[str, float]:
    """Microseconds a call, the median of up to ``calls``, of each payload."""
    figures = {}
    for name, payload in PAYLOADS.items():
        _check(call(payload), payload)
        for _ in range(calls // 5):
            call(payload)
        took: list[int] = []
        until = time.perf_counter_ns() + _NANOSECONDS_MAX
        while len(took) < calls and (start := time.perf_counter_ns()) < until:
            call(payload)
            took.append(time.perf_counter_ns() - start)
        figures[name] = statistics.median(took) / 1000
    return figures


async def latency_awaited(call: Callable[[Any], Awaitable[Any]], calls: int) -> dict[str, float]:
    """As :func:`latency`, for those who can only be awaited."""
    figures = {}
    for name, payload in PAYLOADS.items():
        _check(await call(payload), payload)
        for _ in range(calls // 5):
            await call(payload)
        took: list[int] = []
        until = time.perf_counter_ns() + _NANOSECONDS_MAX
        while len(took) < calls and (start := time.perf_counter_ns()) < until:
            await call(payload)
            took.append(time.perf_counter_ns() - start)
        figures[name] = statistics.median(took) / 1000
    return figures


def _check(answer: Any, payload: Any) -> None:
    if answer != payload:
        raise SystemExit(f"the echo of {payload!r} is {answer!r}")
