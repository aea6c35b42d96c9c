"""What measures, the same for every contender: a contender starts workers and calls functions there; this times it.

A contender's script ends with ``run(NAME)``, and is started as ``python NAME.py SCENARIO PARAMETERS [ARGUMENT …]``; the
parameters are a JSON object. It prints a list of figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any

from harness import calls, drop_in, life, tensors, throughput
from harness.contender import Call, Contender, NotOffered
from harness.figures import Figure, Series

__all__ = ["Call", "Contender", "NotOffered", "run"]

_Measured = Sequence[Figure | Series]

_SCENARIOS: dict[str, Callable[[Contender, dict[str, Any]], Awaitable[_Measured]]] = {
    "calls": calls.latency,
    "callback": calls.callback,
    "stream": calls.stream,
    "inflight": throughput.inflight,
    "hosts": throughput.hosts,
    "sizes": tensors.sizes,
    "chain": tensors.chain,
    "shapes": tensors.shapes,
    "images": tensors.images,
    "footprint": tensors.footprint,
    "drop-in": drop_in.drop_in,
    "spawn": life.spawn,
    "spawn-torch": life.spawn_torch,
    "idle": life.idle,
    "recovery": life.recovery,
}


def run(contender: Callable[..., Contender], more: dict[str, Any] | None = None) -> None:
    """Measures one scenario, as the command line says, and prints the figures.

    Args:
        contender: makes one, given the command line's further arguments.
        more: measurements that only this contender has, by scenario.
    """
    scenario, parameters, *arguments = sys.argv[1:]
    measure = (_SCENARIOS | (more or {}))[scenario]
    made = contender(*arguments)
    work = _measured(made, partial(measure, made, json.loads(parameters)))
    with redirect_stdout(sys.stderr):  # Some contenders print.
        figures = asyncio.run(work) if made.is_awaited else _driven(work)
    print(json.dumps([each.as_json() for each in figures]))


async def _measured(contender: Contender, measure: Callable[[], Awaitable[_Measured]]) -> _Measured:
    try:
        return await measure()
    finally:
        await contender.astop()


def _driven(work: Coroutine[Any, Any, _Measured]) -> _Measured:
    """Runs a coroutine that never waits: a contender whose calls block needs no event loop, and pays for none."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a contender that does not say is_awaited has waited for an event loop")
