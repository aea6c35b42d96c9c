"""Calls a second: many in flight from one host, and many hosts at once.

Every call has an argument of its own, and its answer is compared: answers that are handed to others' callers show.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from harness.contender import Call, Contender
from harness.figures import Figure, counted

_DEPTHS = (1, 8, 64, 256)


async def inflight(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """From 1 to 256 in flight, by as many tasks of an event loop and by as many threads, as far as it offers such."""
    if contender.is_awaited:
        await contender.astart()
        return await _by_tasks(contender.acall, parameters)
    contender.start(1, with_torch=False)
    by_threads = _by_threads(contender.call, parameters)
    if type(contender).acall is Contender.acall:
        return by_threads
    return asyncio.run(_by_tasks(contender.acall, parameters)) + by_threads


async def _by_tasks(acall: Call, parameters: dict[str, Any]) -> list[Figure]:
    figures: list[Figure] = []
    for depth in _DEPTHS:
        await _run_tasks(acall, depth, _shorter(parameters))
        figures.append(_in_flight(depth, "task", await _run_tasks(acall, depth, parameters)))
    return figures


def _by_threads(call: Callable[..., Any], parameters: dict[str, Any]) -> list[Figure]:
    figures: list[Figure] = []
    for depth in _DEPTHS:
        _run_threads(call, depth, _shorter(parameters))
        figures.append(_in_flight(depth, "thread", _run_threads(call, depth, parameters)))
    return figures


def _shorter(parameters: dict[str, Any]) -> dict[str, Any]:
    """What is done first, to get warm."""
    return parameters | {"seconds": parameters["seconds"] / 5}


def _in_flight(depth: int, what: str, rate: float) -> Figure:
    return Figure(counted(depth, what), "calls", "/s", rate)


def _run_threads(call: Callable[..., Any], depth: int, parameters: dict[str, Any]) -> float:
    all_are_there = Barrier(depth + 1)

    def caller(number: int) -> int:
        all_are_there.wait()
        until = time.perf_counter() + parameters["seconds"]
        made = 0
        for value in _values(number, parameters["calls"], depth):
            _check(call("echo", value=value), value)
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


async def _run_tasks(acall: Call, depth: int, parameters: dict[str, Any]) -> float:
    start = time.perf_counter()

    async def caller(number: int) -> int:
        made = 0
        for value in _values(number, parameters["calls"], depth):
            _check(await acall("echo", value=value), value)
            made += 1
            if time.perf_counter() > start + parameters["seconds"]:
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


async def hosts(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """From 1 to 8 hosts at once, each with a worker: the calls of all of them together."""
    if parameters.get("one"):
        return await _one_host(contender, parameters)
    await contender.astart()
    await contender.ask("echo", value=0)
    return [
        Figure(counted(count, "host"), "calls", "/s", _run_hosts(contender, count)) for count in parameters["hosts"]
    ]


async def _one_host(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """One of several: says that it is ready, and waits for the line that says when all begin."""
    await contender.astart()
    for value in range(50):
        _check(await contender.ask("echo", value=value), value)
    print("ready", file=sys.__stdout__, flush=True)
    sys.stdin.readline()
    made = 0
    began = time.perf_counter()
    while made < parameters["calls"] and time.perf_counter() < began + parameters["seconds"]:
        _check(await contender.ask("echo", value=made), made)
        made += 1
    return [Figure("one", "calls", "/s", made / (time.perf_counter() - began))]


def _run_hosts(contender: Contender, count: int) -> float:
    """The sum of what hosts reach that begin and end at the same time."""
    import json

    parameters = json.loads(sys.argv[2]) | {"one": True, "calls": sys.maxsize}
    command = [sys.executable, sys.argv[0], "hosts", json.dumps(parameters), *sys.argv[3:]]
    others = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **contender.variables_for_others()},
        )
        for _ in range(count)
    ]
    for each in others:
        assert each.stdout is not None
        if each.stdout.readline() != "ready\n":
            raise SystemExit("a host among others could not begin")
    for each in others:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    rates = []
    for each in others:
        said, _ = each.communicate()
        if each.returncode != 0:
            raise SystemExit("a host among others failed")
        rates.append(json.loads(said)[0]["value"])
    return sum(rates)
