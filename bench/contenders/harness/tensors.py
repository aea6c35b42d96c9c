"""Tensors: to a worker, back, both, and through several; over all sizes, and in the shapes that ComfyUI has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import repeat
from typing import Any

from harness.contender import Contender
from harness.figures import Figure, Series, latencies
from harness.memory import MemoryWatch, available_bytes

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

_SECONDS_MAX = 8.0
"""What acts in turns may take to be measured, once they are warm; slow contenders make fewer."""
_COLD_SECONDS_MAX = 20.0
"""What they may take together when they are done for the first time, to be done again."""
_COPIES_MAX = 6
"""So many times its size a transfer may take of memory: on either side a source, a block, and a result."""


async def sizes(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """From 64 KiB to as much as was asked for, by doubling: in (fresh, and the same again), back, and both.

    A direction ends with the size that takes longer than ``slow_seconds``, or for which there is no memory. Nothing is
    kept that isn't needed: a virtual machine's further memory may take ten times as long to be had as its first.
    """
    import torch

    await contender.astart(with_torch=True)
    await contender.ask("import_torch")
    call = contender.ask

    async def first(tensor: Any) -> None:
        await call("first", tensor=tensor)

    def fresh(size: int) -> Any:
        return torch.ones(size // 4)

    kinds: dict[str, tuple[Callable[[int], Any], Callable[[Any], Awaitable[Any]]]] = {
        "in": (fresh, first),
        "in, again": (lambda size: contender.share(fresh(size)), first),
        "back": (lambda size: size // 4, lambda count: _read(call("make", elements=count))),
        "both": (fresh, lambda tensor: _read(call("invert", image=tensor))),
    }
    ended: set[str] = set()
    figures: list[Figure] = []
    size = 64 * KIB
    while size <= parameters["bytes"] and size * _COPIES_MAX < available_bytes():
        for kind, (make, act) in kinds.items():
            if kind in ended:
                continue
            prepare = partial(make, size)
            if kind == "in, again":
                prepare = repeat(prepare()).__next__
            took = statistics.median(await transfers(prepare, act, parameters["seconds"]))
            figures.append(Figure(size_name(size), kind, "ms", took * 1e3))
            if took > parameters["slow_seconds"]:
                ended.add(kind)
        size *= 2
    return figures


async def chain(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """A fresh tensor through three workers, as a workflow passes it from pack to pack: the last one reads it.

    Ends with the size that takes longer than ``slow_seconds`` for each.
    """
    import torch

    await contender.astart(workers=3, with_torch=True)
    for worker in range(3):
        await contender.ask("import_torch", worker)

    async def through(tensor: Any) -> None:
        for worker in range(2):
            tensor = await contender.ask("echo", worker, value=tensor)
        if await contender.ask("first", 2, tensor=tensor) != 1.0:
            raise SystemExit("a tensor came through as another")

    figures: list[Figure] = []
    for size in (64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB):
        if size <= parameters["bytes"]:
            original = torch.ones(size // 4)
            took = statistics.median(await transfers(original.clone, through, parameters["seconds"]))
            figures.append(Figure(size_name(size), "through three", "ms", took * 1e3))
            if took > 3 * parameters["slow_seconds"]:
                break
    return figures


async def shapes(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """What ComfyUI passes between nodes, there and back, fresh each time."""
    import torch

    await contender.astart(with_torch=True)
    await contender.ask("import_torch")
    values: dict[str, Callable[[], Any]] = {
        "IMAGE": lambda: torch.rand(1, 1024, 1024, 3),
        "LATENT": lambda: {"samples": torch.rand(1, 4, 128, 128)},
        "CONDITIONING": lambda: [[torch.rand(1, 77, 2048), {"pooled_output": torch.rand(1, 1280)}]],
    }
    figures: list[Figure] = []
    for name, fresh in values.items():
        value = fresh()
        if not _same(await contender.ask("echo", value=value), value):
            raise SystemExit(f"{name} came back as another")
        samples = await transfers(fresh, lambda each: contender.ask("echo", value=each), parameters["seconds"])
        figures += latencies(name, samples, "ms", 1e3)
    return figures


async def images(contender: Contender, parameters: dict[str, Any]) -> list[Figure]:
    """``1.0 - image`` there and back, and a tensor to who reads its first element; beside the same in this process."""
    import torch

    await contender.astart(with_torch=True)
    call = contender.ask
    image = torch.rand(1, 1024, 1024, 4)
    if not torch.equal(await call("invert", image=image), 1.0 - image):
        raise SystemExit("an image came back as another")

    async def invert(tensor: Any) -> None:
        await call("invert", image=tensor)

    async def first(tensor: Any) -> None:
        await call("first", tensor=tensor)

    async def inside(tensor: Any) -> None:
        1.0 - tensor  # pyright: ignore[reportUnusedExpression]

    times = parameters["times"]
    alone, away = await _in_turns(image.clone, [inside, invert], 6 * times)
    figures = _beside("16 MiB, 1.0 - image", away, "in process", alone)
    big, targets = torch.ones(parameters["bytes"] // 4), [torch.ones(parameters["bytes"] // 4)]
    name = size_name(parameters["bytes"])

    async def copy(tensor: Any) -> None:
        targets[0].copy_(tensor)

    figures.append(await _first_of_all(f"{name} in", first, big.clone()))
    copied, taken = await _in_turns(big.clone, [copy, first], times)
    figures += _beside(f"{name} in", taken, "a warm copy", copied)
    targets.clear()
    figures.append(await _first_of_all(f"{name}, 1.0 - t", invert, big.clone()))
    alone, away = await _in_turns(big.clone, [inside, invert], times)
    return figures + _beside(f"{name}, 1.0 - t", away, "in process", alone)


async def footprint(contender: Contender, parameters: dict[str, Any]) -> list[Figure | Series]:
    """The memory of all processes together while a tensor goes in, and there and back, over what it was before."""
    import torch

    await contender.astart(with_torch=True)
    await contender.ask("import_torch")
    await contender.ask("invert", image=torch.ones(4))
    size: int = parameters["bytes"]
    name = size_name(size)
    with MemoryWatch() as watch:
        idle = watch.mark("idle")
        copied = contender.copied_bytes()
        tensor = torch.ones(size // 4)
        watch.mark("in")
        await contender.ask("first", tensor=tensor)
        inside = watch.mark("held")
        copied_in = contender.copied_bytes()
        watch.mark("both")
        result = await contender.ask("invert", image=tensor)
        both = watch.mark("held after both")
        copied_both = contender.copied_bytes()
        del tensor, result
        watch.mark("let go")
        await contender.ask("nothing")
        time.sleep(parameters["rest_seconds"])  # noqa: ASYNC251 - nothing else runs on this loop
        after = watch.mark("end")
    figures: list[Figure | Series] = [
        Figure(f"{name} in", "peak of its size", "×", (inside - idle) / size),
        Figure(f"{name} both", "peak of its size", "×", (both - idle) / size),
        Figure("let go", "kept", "MiB", (after - idle) / MIB),
        Series(f"{name} in, and both", "MiB", watch.series()),
    ]
    if copied is not None and copied_in is not None and copied_both is not None:
        figures += [
            Figure(f"{name} in", "bytes copied per byte", "×", (copied_in - copied) / size),
            Figure(f"{name} both", "bytes copied per byte", "×", (copied_both - copied_in) / (2 * size)),
        ]
    return figures


def size_name(size: int) -> str:
    """64 KiB, 16 MiB, 4 GiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size / KIB:g} KiB"


async def _first_of_all(of: str, act: Callable[[Any], Awaitable[None]], tensor: Any) -> Figure:
    """What it takes for the first time, when no memory for it is there yet."""
    start = time.perf_counter()
    await act(tensor)
    return Figure(f"{of}, first of all", "once", "ms", (time.perf_counter() - start) * 1e3)


def _beside(of: str, samples: list[float], base_name: str, base: list[float]) -> list[Figure]:
    """Two things that were done in turns, and the one as a multiple of the other."""
    took, beside = statistics.median(samples) * 1e3, statistics.median(base) * 1e3
    return [
        Figure(of, "p50", "ms", took),
        Figure(of, base_name, "ms", beside),
        Figure(of, f"of {base_name}", "×", took / beside),
    ]


async def _read(result: Awaitable[Any]) -> None:
    tensor = await result
    tensor.reshape(-1)[0].item()


async def transfers(
    prepare: Callable[[], Any], act: Callable[[Any], Awaitable[Any]], seconds: float, times: int = 30
) -> list[float]:
    """What each transfer took, in seconds, of what is made for it before; two uncounted ones go ahead, if short."""
    took: list[float] = []
    warm_ups = 2
    began = time.perf_counter()
    while not took or (len(took) < times and time.perf_counter() < began + seconds):
        what = prepare()
        start = time.perf_counter()
        await act(what)
        each = time.perf_counter() - start
        del what
        if warm_ups and each < seconds / 3:
            warm_ups -= 1
            began = time.perf_counter()
        else:
            took.append(each)
    return took


async def _in_turns(
    prepare: Callable[[], Any], acts: list[Callable[[Any], Awaitable[None]]], times: int
) -> list[list[float]]:
    """Each act so many times, one after the other: what else the machine does meanwhile is done to all.

    Two uncounted ones go ahead; where one alone takes longer than there is time for all, it counts.
    """
    took: list[list[float]] = [[] for _ in acts]
    began = time.perf_counter()
    while len(took[0]) < times + 2 and (len(took[0]) < 3 or time.perf_counter() < began + _SECONDS_MAX):
        if len(took[0]) == 1 and time.perf_counter() > began + _COLD_SECONDS_MAX:
            return took
        if len(took[0]) <= 2:
            began = time.perf_counter()
        for act, samples in zip(acts, took, strict=True):
            what = prepare()
            start = time.perf_counter()
            await act(what)
            samples.append(time.perf_counter() - start)
            del what
    return [samples[2:] for samples in took]


def _same(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(each, other[key]) for key, each in one.items())
    return len(one) == len(other) and all(map(_same, one, other))
