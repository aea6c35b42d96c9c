"""Workers' lives: how long until one answers, what an idle one takes, how soon a killed one is replaced."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from harness.contender import Contender
from harness.figures import Figure
from harness.processes import pss_bytes

_RECOVERY_SECONDS_MAX = 30.0


async def spawn(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """To the first answer: from nothing at all, and of the next worker."""
    start = time.perf_counter()
    await contender.astart()
    await contender.ask("echo", value=1)
    nothing = time.perf_counter() - start
    start = time.perf_counter()
    await contender.arestart()
    await contender.ask("echo", value=1)
    return [
        Figure("from nothing", "first answer", "ms", nothing * 1e3),
        Figure("the next worker", "first answer", "ms", (time.perf_counter() - start) * 1e3),
    ]


async def spawn_torch(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """To the first answer of a worker that has imported torch, as its host has: from nothing, and of the next one."""
    figures = await first_answer_with_torch(contender)
    start = time.perf_counter()
    await contender.arestart(with_torch=True)
    await contender.ask("import_torch")
    next_one = (time.perf_counter() - start) * 1e3
    return [*figures, Figure("the next worker", "first answer, torch imported", "ms", next_one)]


async def first_answer_with_torch(contender: Contender) -> list[Figure]:
    """Starts a contender, and has its worker import torch."""
    import torch

    torch.ones(1)
    start = time.perf_counter()
    await contender.astart(with_torch=True)
    await contender.ask("import_torch")
    return [Figure("from nothing", "first answer, torch imported", "ms", (time.perf_counter() - start) * 1e3)]


async def idle(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """What is taken by all that a contender starts, per role, once it has answered and rests; with torch as well."""
    await contender.astart(with_torch=True)
    await contender.ask("echo", value=1)
    figures = _rested(contender, "as it starts", parameters)
    await contender.ask("import_torch")
    return figures + _rested(contender, "torch imported", parameters)


def _rested(contender: Contender, of: str, parameters: dict[str, Any]) -> list[Figure]:
    time.sleep(parameters["rest_seconds"])
    return [
        Figure(of, f"PSS of {role}", "MiB", pss_bytes(pids) / (1 << 20)) for role, pids in contender.processes().items()
    ]


async def recovery(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """From the SIGKILL of the worker to the next answer."""
    await contender.astart()
    await contender.ask("echo", value=1)
    start = time.perf_counter()
    for pid in contender.processes()["worker"]:
        os.kill(pid, signal.SIGKILL)
    while True:
        try:
            await contender.ask("echo", value=2)
            break
        except Exception:
            if time.perf_counter() > start + _RECOVERY_SECONDS_MAX:
                raise
            await contender.recover()
    return [Figure("a killed worker", "next answer", "ms", (time.perf_counter() - start) * 1e3)]
