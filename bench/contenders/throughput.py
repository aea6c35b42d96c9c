"""Counts calls a second while a number of them are in flight: threads that call, or tasks that await, one call each.

Every call has an argument of its own, and its answer is compared: answers that are handed to others' callers show.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

_DEPTHS = (1, 8, 64)

#: What a depth may take to be measured: slow contenders make fewer calls.
_SECONDS_MAX = 1.0


def throughput_of_threads(call: Callable[[Any], Any], calls: int) -> dict[str, float]:
    """Calls a second with 1, 8 and 64 threads that share ``calls`` among them."""
    figures = {}
    for depth in _DEPTHS:
        _run_threads(call, calls // 5, depth)
        figures[_title(depth, "thread")] = _run_threads(call, calls, depth)
    return figures


async def throughput_of_tasks(call: Callable[[Any], Awaitable[Any]], calls: int) -> dict[str, float]:
    """The same with as many tasks on this event loop."""
    figures = {}
    for depth in _DEPTHS:
        await _run_tasks(call, calls // 5, depth)
        figures[_title(depth, "task")] = await _run_tasks(call, calls, depth)
    return figures


def _title(depth: int, what: str) -> str:
    return f"{depth} {what}" if depth == 1 else f"{depth} {what}s"


def _run_threads(call: Callable[[Any], Any], calls: int, depth: int) -> float:
    all_are_there = Barrier(depth + 1)

    def caller(number: int) -> int:
        all_are_there.wait()
        until = time.perf_counter() + _SECONDS_MAX
        made = 0
        for value in _values(number, calls, depth):
            _check(call(value), value)
            made += 1
            if time.perf_counter() > until:
                break
        return made

    with ThreadPoolExecutor(depth) as threads:
        callers = [threads.submit(caller, number) for number in range(depth)]
        all_are_there.wait()
        start = time.perf_counter()
        made = sum(each.result() for each in callers)
        return made / (time.perf_counter() - start)


async def _run_tasks(call: Callable[[Any], Awaitable[Any]], calls: int, depth: int) -> float:
    start = time.perf_counter()

    async def caller(number: int) -> int:
        made = 0
        for value in _values(number, calls, depth):
            _check(await call(value), value)
            made += 1
            if time.perf_counter() > start + _SECONDS_MAX:
                break
        return made

    made = sum(await asyncio.gather(*(caller(number) for number in range(depth))))
    return made / (time.perf_counter() - start)


def _values(caller: int, calls: int, depth: int) -> range:
    """One caller's share of the arguments, at least one of them; no two callers have one in common."""
    return range(caller, max(calls, depth), depth)


def _check(answer: Any, value: Any) -> None:
    if answer != value:
        raise SystemExit(f"the echo of {value!r} is {answer!r}")
