"""What is measured of Airlock alone: what was sent before, small tensors, copies, mappings; and where calls went."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import calls
from harness.figures import Figure
from harness.tensors import MIB, size_name

if TYPE_CHECKING:
    from airlock import AirlockContender


async def latency(contender: AirlockContender, parameters: dict[str, Any]) -> list[Figure]:
    """As for everybody, and a look which way the calls went."""
    figures = await calls.latency(contender, parameters)
    if _goes_over_relay(contender) != contender.is_relayed:
        raise SystemExit(f"these calls went over the {'line' if contender.is_relayed else 'relay'}")
    return figures


def _goes_over_relay(contender: AirlockContender) -> bool:
    """Whether the server knows of a call that is under way; of those over a line it doesn't."""
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(contender.call, "sleep", seconds=0.1)
        while not slow.done():
            if contender.host.status()["packs"][0]["workers"][0]["relayed"] > 0:
                return True
    return False


async def again(contender: AirlockContender, parameters: dict[str, Any]) -> list[Figure]:
    """What was received, passed on; and what is shared, sent again. In empty calls, in turns with those."""
    import torch

    contender.start(1, with_torch=True)
    times, pack = parameters["times"], contender.packs[0]
    figures: list[Figure] = []
    for size in parameters["sizes"]:
        tensor = torch.ones(size // 4)
        looked_at = contender.call("echo", value=tensor)
        looked_at.sum()
        sent = {
            "received": contender.call("echo", value=tensor),
            "received and looked at": looked_at,
            "shared": contender.host.share(tensor),
        }
        acts = {"": partial(pack.call, "nothing")} | {
            name: partial(pack.call, "take", value=each) for name, each in sent.items()
        }
        took = _in_turns(acts, times if size <= 16 * MIB else max(3, times // 50))
        for name in sent:
            figures += [
                Figure(f"{size_name(size)} {name}", "p50", "ms", took[name] * 1e3),
                Figure(f"{size_name(size)} {name}", "of an empty call", "×", took[name] / took[""]),
            ]
    return figures


async def small(contender: AirlockContender, parameters: dict[str, Any]) -> list[Figure]:
    """A thousand tensors of 1 KiB in one message, beside the same bytes in one list."""
    import torch

    contender.start(1, with_torch=True)
    tensors = [torch.rand(256) for _ in range(1000)]
    plain = [bytes(1024) for _ in range(1000)]
    took = _in_turns(
        {
            "tensors": lambda: contender.call("take", value=tensors),
            "bytes": lambda: contender.call("take", value=plain),
        },
        parameters["times"],
    )
    return [
        Figure("1,000 of 1 KiB", "tensors", "ms", took["tensors"] * 1e3),
        Figure("1,000 of 1 KiB", "bytes", "ms", took["bytes"] * 1e3),
        Figure("1,000 of 1 KiB", "tensors, of bytes", "×", took["tensors"] / took["bytes"]),
    ]


async def copies(contender: AirlockContender, parameters: dict[str, Any]) -> list[Figure]:
    """One tensor copied into memory that was written to before: by Airlock's threads, by one thread, and by torch's."""
    import torch

    from comfy_airlock.memory import copying, libc

    figures: list[Figure] = []
    for size in parameters["sizes"]:
        source, target = torch.ones(size // 4), torch.ones(size // 4)
        to, from_ = target.data_ptr(), source.data_ptr()
        took = _in_turns(
            {
                "by Airlock": partial(copying.copy, to, from_, size, None),
                "by one thread": partial(libc.copy, to, from_, size),
                "by torch": partial(target.copy_, source),
            },
            max(3, min(parameters["times"], parameters["bytes"] // size)),
        )
        figures += [Figure(size_name(size), name, "ms", each * 1e3) for name, each in took.items()]
        for base in ("one thread", "torch"):
            figures.append(Figure(size_name(size), f"of {base}'s", "×", took["by Airlock"] / took[f"by {base}"]))
    return figures


async def mappings(contender: AirlockContender, parameters: dict[str, Any]) -> list[Figure]:
    """A receipt's mapping of shared memory: made anew and used again, with one page of it read or all; and the question
    whether it was written to, of which all pages are there."""
    import torch

    from comfy_airlock.memory import libc
    from comfy_airlock.memory.libc import PAGE_BYTES
    from comfy_airlock.memory.pagemap import PageMap
    from comfy_airlock.memory.spares import Place, Spares

    def read(address: int, size: int, step: int) -> None:
        torch.frombuffer(libc.buffer_at(address, size), dtype=torch.uint8)[::step].sum().item()

    def anew(size: int, step: int) -> None:
        address = libc.map_private(descriptor, 0, size)
        read(address, size, step)
        libc.unmap(address, size)

    def again(place: Place, step: int) -> None:
        size = place.pages * PAGE_BYTES
        address = spares.take(place) or libc.map_private(descriptor, 0, size)
        read(address, size, step)
        spares.put(place, address)

    figures: list[Figure] = []
    page_map = PageMap()
    spares = Spares(page_map)
    descriptor = os.memfd_create("mappings")
    os.posix_fallocate(descriptor, 0, max(parameters["sizes"]))
    for size in parameters["sizes"]:
        # As if of two segments: neither finds the pages that the other has read.
        one, every = Place(1, 0, size // PAGE_BYTES), Place(2, 0, size // PAGE_BYTES)
        there = libc.map_private(descriptor, 0, size)
        read(there, size, PAGE_BYTES)
        acts = {
            "one page read, anew": partial(anew, size, size),
            "one page read, again": partial(again, one, size),
            "all pages read, anew": partial(anew, size, PAGE_BYTES),
            "all pages read, again": partial(again, every, PAGE_BYTES),
            "read where it is mapped": partial(read, there, size, PAGE_BYTES),
            "asked whether it was written to": partial(page_map.is_written, there, size),
        }
        took = _in_turns(acts, parameters["times"])
        figures += [Figure(size_name(size), name, "µs", each * 1e6) for name, each in took.items()]
        libc.unmap(there, size)
    spares.drop()
    page_map.close()
    os.close(descriptor)
    return figures


def _in_turns(acts: dict[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """The median of what each took, in seconds; in blocks of ten, so that each finds its own way warm, in turns."""
    took: dict[str, list[float]] = {name: [] for name in acts}
    block = min(10, times)
    for turn in range(times // block + 1):
        for name, act in acts.items():
            for _ in range(block):
                start = time.perf_counter()
                act()
                if turn:
                    took[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in took.items()}


MEASUREMENTS = {"calls": latency, "again": again, "small": small, "copies": copies, "mappings": mappings}
