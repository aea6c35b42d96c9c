"""What a host waits for that keeps to pyisolate's API, whoever answers it: all of it in one run."""

from __future__ import annotations

from functools import partial
from typing import Any

from harness.calls import payloads
from harness.contender import Contender
from harness.figures import Figure, latencies
from harness.life import first_answer_with_torch
from harness.tensors import size_name, transfers


async def drop_in(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """To the first answer; calls one after the other; a fresh image there and back; a large fresh tensor in."""
    import torch

    figures = await first_answer_with_torch(contender)
    figures += await payloads(contender, parameters)
    image = torch.rand(1, 1024, 1024, 4)
    if not torch.equal(await contender.ask("invert", image=image.clone()), 1.0 - image):
        raise SystemExit("an image came back as another")
    elements = parameters["bytes"] // 4
    if await contender.ask("first", tensor=torch.full((elements,), 7.0)) != 7.0:
        raise SystemExit("a tensor arrived as another")
    both = await transfers(image.clone, lambda each: contender.ask("invert", image=each), parameters["seconds"])
    figures += latencies("16 MiB both", both, "ms", 1e3)
    fresh = partial(torch.ones, elements)
    into = await transfers(fresh, lambda each: contender.ask("first", tensor=each), 2 * parameters["seconds"])
    return figures + latencies(f"{size_name(parameters['bytes'])} in", into, "ms", 1e3)
