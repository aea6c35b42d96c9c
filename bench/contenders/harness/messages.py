"""For contenders that have queues, pipes or sockets and no calls: requests go out, answers come back in their order.

The loop of their workers is the same for all, so that only what carries the messages differs.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from workload.functions import FUNCTIONS

from harness.contender import Contender


class Channel(Protocol):
    """One end of what carries messages: any values of Python's, tensors among them."""

    def send(self, message: Any, /) -> None: ...

    def receive(self) -> Any: ...


class Messenger(Contender):
    """A call is one message to a worker, and one from it; items of a stream are as many. None ends a worker."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self._processes: list[Any] = []

    def spawn(self, channel: Channel, far_end: Callable[..., Channel], *values: Any) -> None:
        """Starts a worker by multiprocessing's *spawn*, where the far end of the channel is made from the values."""
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(far_end, *values), daemon=True)
        process.start()
        self.channels.append(channel)
        self._processes.append(process)

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        channel = self.channels[worker]
        channel.send((function, values))
        return result_of(channel.receive())

    def items(self, count: int) -> Iterator[Any]:
        channel = self.channels[0]
        channel.send(("items", {"count": count}))
        return (result_of(channel.receive()) for _ in range(count))

    def stop(self) -> None:
        for channel in self.channels:
            channel.send(None)
        for process in self._processes:
            process.join()
        self.channels, self._processes = [], []


def result_of(answer: Any) -> Any:
    """What a worker returned; raises what it raised."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def answers_to(request: Any) -> Iterator[Any]:
    """Calls the function that was asked for: what it returns, each item that it yields, or what it raises."""
    function, values = request
    try:
        result = FUNCTIONS[function](**values)
    except Exception as error:  # noqa: BLE001 - it is the caller's
        result = error
    return result if isinstance(result, Iterator) else iter((result,))


def _serve(end: Callable[..., Channel], *values: Any) -> None:
    """Answers one request after the other until there is None; keeps nothing of one while it waits for the next."""
    channel = end(*values)
    while (request := channel.receive()) is not None:
        answers = answers_to(request)
        del request
        for each in answers:
            channel.send(each)
            del each
        del answers


def in_one(value: Any) -> bytes:
    """A value pickled, tensors as numpy arrays, since their own pickle makes more copies."""
    body = io.BytesIO()
    _Pickler(body, protocol=5).dump(value)
    return body.getvalue()


def in_frames(value: Any) -> list[Any]:
    """A value pickled as in one, but each tensor's memory beside it, uncopied."""
    body, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(body, protocol=5, buffer_callback=buffers.append).dump(value)
    return [body.getbuffer(), *(each.raw() for each in buffers)]


def from_frames(frames: list[Any]) -> Any:
    """The value; its tensors lie in the frames' memory."""
    return pickle.loads(frames[0], buffers=frames[1:])


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            return NotImplemented
        return _tensor, (value.numpy(),)


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)
