"""What a contender offers: workers, and calls of the workload's functions there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from harness import processes

Call = Callable[..., Awaitable[Any]]


class NotOffered(Exception):
    """The contender has no such thing: it takes no part."""


class Contender:
    """One way to call functions in other processes. Each worker has the functions of ``workload.functions``."""

    #: Whether its calls are coroutines that need an event loop; :meth:`call` is all there is where they aren't.
    is_awaited = False

    def start(self, workers: int, with_torch: bool) -> None:
        """Starts workers, or has them start with the first call."""
        raise NotImplementedError

    async def astart(self, workers: int = 1, with_torch: bool = False) -> None:
        """As :meth:`start`; the loop runs."""
        self.start(workers, with_torch)

    def stop(self) -> None:
        """Ends everything. Also called where nothing was started."""

    async def astop(self) -> None:
        """As :meth:`stop`; the loop runs."""
        self.stop()

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        """Calls a function of the workload's in a worker; returns what it returns."""
        raise NotOffered

    async def acall(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        """As :meth:`call`, for the tasks of an event loop."""
        raise NotOffered

    async def ask(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        """The way for who makes one call after the other: it blocks, unless calls can only be awaited."""
        if self.is_awaited:
            return await self.acall(function, worker, **values)
        return self.call(function, worker, **values)

    def items(self, count: int) -> Iterator[Any]:
        """What the function ``items`` yields, as it comes."""
        raise NotOffered

    async def aitems(self, count: int) -> AsyncIterator[Any]:
        """As :meth:`items`."""
        for each in self.items(count):
            yield each

    def callback(self, function: Callable[[Any], Any]) -> Any:
        """A function of the host's as it is passed to ``call_back``."""
        raise NotOffered

    def share(self, tensor: Any) -> Any:
        """A tensor as it is best kept when it will be sent again and again: by default as it is."""
        return tensor

    def copied_bytes(self) -> int | None:
        """Bytes of tensors that it has copied so far, in all processes; None where it doesn't count them."""
        return None

    def restart(self, with_torch: bool = False) -> None:
        """Ends the worker, so that the next call is answered by a new one, started as before."""
        self.stop()
        self.start(1, with_torch)

    async def arestart(self, with_torch: bool = False) -> None:
        """As :meth:`restart`; the loop runs."""
        self.restart(with_torch)

    async def recover(self) -> None:
        """What its documentation says to do about a worker that was killed."""
        raise NotOffered

    def variables_for_others(self) -> dict[str, str]:
        """Environment variables with which further hosts use what this one has started."""
        return {}

    def processes(self) -> dict[str, list[int]]:
        """Its processes by role, the host's own included: *worker*, *server*, or what else there is."""
        return {"host": [os.getpid()], **processes.descendants_by_role()}
