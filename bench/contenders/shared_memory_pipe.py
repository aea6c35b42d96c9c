# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
#
# [tool.airlock-bench]
# name = "multiprocessing.shared_memory"
# scenarios = [
#   "calls", "stream", "hosts", "sizes", "chain", "shapes", "images", "footprint", "spawn", "spawn-torch", "idle",
# ]
# torch = true
#
# [tool.airlock-bench.contenders]
# "shared_memory and a pipe" = []
# ///
"""The standard library's shared memory, and a pipe: what one writes with no dependency, by the documentation of both.

Each tensor is copied into a segment of its own, whose name goes through the pipe in the pickled message. Who receives
it maps it as a tensor and unlinks it; it is closed once no tensor is a view of it any more, which only trying can tell.
Calls go one after the other, and none goes back into the host. `python shared_memory_pipe.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, ClassVar

from harness import run
from harness.messages import Messenger


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            return NotImplemented
        segment = SharedMemory(create=True, size=value.nbytes)
        torch.frombuffer(segment.buf, dtype=value.dtype, count=value.numel()).reshape(value.shape).copy_(value)
        segment.close()
        return _map, (segment.name, value.dtype, value.shape)


def _map(name: str, dtype: Any, shape: Any) -> Any:
    import numpy
    import torch

    segment = SharedMemory(name)
    segment.unlink()
    _Pipe.mapped.append(segment)
    # torch.frombuffer lets go of the buffer at once, and would not see that the segment is closed; numpy holds it.
    held: Any = numpy.frombuffer(segment.buf or b"", "B")
    return torch.frombuffer(held, dtype=dtype, count=shape.numel()).reshape(shape)


class _Pipe:
    mapped: ClassVar[list[SharedMemory]] = []

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Any) -> None:
        body = io.BytesIO()
        _Pickler(body, protocol=5).dump(message)
        self._connection.send_bytes(body.getbuffer())

    def receive(self) -> Any:
        for segment in self.mapped[:]:
            with suppress(BufferError):
                segment.close()
                self.mapped.remove(segment)
        return pickle.loads(self._connection.recv_bytes())


class SharedMemoryPipe(Messenger):
    """A process with a pipe for each worker."""

    def start(self, workers: int, with_torch: bool) -> None:
        for _ in range(workers):
            near, far = multiprocessing.Pipe()
            self.spawn(_Pipe(near), _Pipe, far)
            far.close()


if __name__ == "__main__":
    run(SharedMemoryPipe)
