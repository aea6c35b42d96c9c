"""One call after the other: plain ones, with a callback inside, and as a stream."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from harness.contender import Contender
from harness.figures import Figure, latencies
from harness.processes import cpu_seconds

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
"""A small answer, and what ComfyUI passes to a node: a few strings, numbers and a list."""

_ITEMS = 1000


async def latency(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """Each payload there and back: p50, p99, calls a second, CPU time of each process."""
    await contender.astart()
    return await payloads(contender, parameters)


async def payloads(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """As :func:`latency`, of a contender that was started."""
    figures: list[Figure] = []
    for name, payload in PAYLOADS.items():
        await _check(contender, payload)
        figures += await _timed(contender, name, partial(contender.ask, "echo", value=payload), parameters)
    return figures


async def callback(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """A call, in which the worker asks a function of the host's once."""
    await contender.astart()
    function = contender.callback(_plus_one)
    if await contender.ask("call_back", function=function, value=42) != 43:
        raise SystemExit("a callback was not answered as it should be")
    return await _timed(contender, "int", partial(contender.ask, "call_back", function=function, value=42), parameters)


async def stream(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """A thousand items, one after the other, as the worker yields them."""
    await contender.astart()

    async def receive() -> None:
        expected = 0
        async for item in contender.aitems(_ITEMS):
            if item != expected:
                raise SystemExit(f"item {expected} of a stream is {item!r}")
            expected += 1
        if expected != _ITEMS:
            raise SystemExit(f"a stream of {_ITEMS} items had {expected}")

    await receive()
    samples = await _samples(receive, max(1, parameters["calls"] // 100), parameters["seconds"])
    rates = sorted(_ITEMS / each for each in samples)
    return [Figure(f"{_ITEMS} items", "items", "/s", rates[len(rates) // 2])]


def _plus_one(value: int) -> int:
    return value + 1


async def _check(contender: Contender, payload: Any) -> None:
    answer = await contender.ask("echo", value=payload)
    if answer != payload:
        raise SystemExit(f"the echo of {payload!r} is {answer!r}")


async def _timed(
    contender: Contender, name: str, act: Callable[[], Awaitable[Any]], parameters: dict[str, Any]
) -> list[Figure]:
    calls = parameters["calls"]
    await _samples(act, calls // 5, parameters["seconds"])
    roles = contender.processes()
    before = {role: cpu_seconds(pids) for role, pids in roles.items()}
    began = time.perf_counter()
    samples = await _samples(act, calls, parameters["seconds"])
    took = time.perf_counter() - began
    return [
        *latencies(name, samples, "µs", 1e6),
        Figure(name, "calls", "/s", len(samples) / took),
        *(
            Figure(name, f"CPU of {role}, 100,000 calls", "s", (cpu_seconds(pids) - before[role]) / len(samples) * 1e5)
            for role, pids in roles.items()
        ),
    ]


async def _samples(act: Callable[[], Awaitable[Any]], times: int, seconds: float) -> list[float]:
    """What each of so many calls took, in seconds; of fewer, where those take too long."""
    took: list[float] = []
    clock = time.perf_counter
    until = clock() + seconds
    while len(took) < times and (start := clock()) < until:
        await act()
        took.append(clock() - start)
    return took
