# /// script
# requires-python = ">=3.10"
# dependencies = ["pyzmq==27.3.0", "numpy"]
#
# [tool.airlock-bench]
# name = "pyzmq 27.3.0"
# scenarios = [
#   "calls", "stream", "inflight", "hosts", "sizes", "chain", "shapes", "images", "footprint", "spawn", "spawn-torch",
#   "idle",
# ]
# torch = true
#
# [tool.airlock-bench.contenders]
# "pyzmq" = []
# ///
"""pyzmq over ipc, by its howto on serialization: pickle's protocol 5, with each tensor's memory as a frame of its own.

The worker has a ROUTER, and the host a DEALER for each thread, as those mustn't share one; with asyncio, a number in
front says whose answer one is. Only the kernel copies frames, through the socket. There are no callbacks, and nothing
tells that a worker has died. `python zmq_pickle5.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

import asyncio
import threading
from tempfile import TemporaryDirectory
from typing import Any

import zmq
import zmq.asyncio
from harness import run
from harness.messages import Messenger, from_frames, in_frames, result_of


class _Dealer:
    def __init__(self, address: str) -> None:
        self._address, self._of_thread = address, threading.local()

    def send(self, message: Any) -> None:
        if not hasattr(self._of_thread, "socket"):
            self._of_thread.socket = zmq.Context.instance().socket(zmq.DEALER)
            self._of_thread.socket.connect(self._address)
        self._of_thread.socket.send_multipart([b"", *in_frames(message)], copy=False)

    def receive(self) -> Any:
        return from_frames(self._of_thread.socket.recv_multipart(copy=False)[1:])


class _Router:
    def __init__(self, address: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.router_mandatory = True
        self._socket.bind(address)

    def receive(self) -> Any:
        sender, number, *frames = self._socket.recv_multipart(copy=False)
        self._envelope = (sender, number)
        return from_frames(frames)

    def send(self, message: Any) -> None:
        self._socket.send_multipart([*self._envelope, *in_frames(message)], copy=False)


class ZmqPickle5(Messenger):
    """A process with a ROUTER for each worker."""

    def start(self, workers: int, with_torch: bool) -> None:
        zmq.Context.instance().reconnect_ivl = 10
        self._folder = TemporaryDirectory()
        for number in range(workers):
            address = f"ipc://{self._folder.name}/{number}"
            self.spawn(_Dealer(address), _Router, address)

    async def acall(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        if not hasattr(self, "_socket"):
            self._socket = zmq.Context.instance().socket(zmq.DEALER, zmq.asyncio.Socket)
            self._socket.connect(f"ipc://{self._folder.name}/{worker}")
            self._answers: dict[bytes, asyncio.Future[Any]] = {}
            self._receiver = asyncio.create_task(self._receive())
        number, answer = str(id(values)).encode(), asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._socket.send_multipart([number, *in_frames((function, values))], copy=False)
        return result_of(await answer)

    async def _receive(self) -> None:
        while True:
            number, *frames = await self._socket.recv_multipart(copy=False)
            self._answers.pop(number.bytes).set_result(from_frames(frames))

    def stop(self) -> None:
        super().stop()
        zmq.Context.instance().destroy(linger=0)


if __name__ == "__main__":
    run(ZmqPickle5)
