# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
#
# [tool.airlock-bench]
# name = "torch.multiprocessing"
# scenarios = [
#   "calls", "stream", "hosts", "sizes", "chain", "shapes", "images", "footprint", "spawn", "spawn-torch", "idle",
# ]
# torch = true
#
# [tool.airlock-bench.contenders]
# "torch.multiprocessing" = []
# ///
"""torch.multiprocessing, as its documentation's best practices say: processes by *spawn*, and queues between them.

A tensor that is put into a queue moves to shared memory, which is sent as a descriptor (the strategy by default); what
is taken out of the queue is a tensor over the same memory. A process has one queue of requests and one of answers:
nothing says whose answer one is, so calls go one after the other. There are no callbacks, and a worker that is killed
may leave its queues broken. `python torch_queues.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

from typing import Any

from harness import run
from harness.messages import Messenger


class _Queues:
    def __init__(self, outgoing: Any, incoming: Any) -> None:
        self.send, self.receive = outgoing.put, incoming.get


class TorchQueues(Messenger):
    """A process with two queues for each worker."""

    def __init__(self) -> None:
        import torch.multiprocessing as mp

        super().__init__()
        self._context: Any = mp.get_context("spawn")

    def start(self, workers: int, with_torch: bool) -> None:
        for _ in range(workers):
            requests, answers = self._context.Queue(), self._context.Queue()
            self.spawn(_Queues(requests, answers), _Queues, answers, requests)


if __name__ == "__main__":
    run(TorchQueues)
