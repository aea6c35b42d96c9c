# /// script
# requires-python = ">=3.10"
# dependencies = ["grpcio==1.85.1", "numpy"]
#
# [tool.airlock-bench]
# name = "gRPC 1.85.1"
# scenarios = [
#   "calls", "stream", "inflight", "hosts", "sizes", "chain", "shapes", "images", "footprint", "spawn", "spawn-torch",
#   "idle",
# ]
# torch = true
#
# [tool.airlock-bench.contenders]
# "gRPC" = []
# ///
"""gRPC over a Unix socket: a server in each worker, with generic handlers, and pickle where protobuf would be.

Its serializers make bytes, so that a message with a tensor is one piece, pickled by protocol 5, of any size. The server
streams; calls in flight are grpc.aio's, and those of threads. There are no callbacks, and nothing starts a server again
that has died. `python grpc_unix.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio
from harness import Contender, run
from harness.messages import in_one
from workload.functions import FUNCTIONS

_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def _stub(method: Any, name: str) -> Any:
    return method(f"/workload/{name}", request_serializer=in_one, response_deserializer=pickle.loads)


class GrpcUnix(Contender):
    """A process with a server for each worker."""

    def start(self, workers: int, with_torch: bool) -> None:
        self._folder, context = TemporaryDirectory(), multiprocessing.get_context("spawn")
        self._workers: list[tuple[Any, grpc.Channel]] = []
        for number in range(workers):
            address, is_ready = f"unix:{self._folder.name}/{number}", context.Event()
            process = context.Process(target=_work, args=(address, is_ready), daemon=True)
            process.start()
            is_ready.wait()
            self._workers.append((process, grpc.insecure_channel(address, _OPTIONS)))
        self._calls = [_stub(channel.unary_unary, "call") for _, channel in self._workers]

    def stop(self) -> None:
        for process, channel in getattr(self, "_workers", ()):
            channel.close()
            process.terminate()
            process.join()

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        return self._calls[worker]((function, values))[0]

    async def acall(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        if not hasattr(self, "_acall"):
            self._channel = grpc.aio.insecure_channel(f"unix:{self._folder.name}/{worker}", _OPTIONS)
            self._acall = _stub(self._channel.unary_unary, "call")
        return (await self._acall((function, values)))[0]

    def items(self, count: int) -> Iterator[Any]:
        return _stub(self._workers[0][1].unary_stream, "items")({"count": count})


def _work(address: str, is_ready: Any) -> None:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        function, values = request
        return (FUNCTIONS[function](**values),)  # None alone would be taken for a failure.

    def items(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        return FUNCTIONS["items"](**request)

    handlers = {
        "call": grpc.unary_unary_rpc_method_handler(call, pickle.loads, in_one),
        "items": grpc.unary_stream_rpc_method_handler(items, pickle.loads, in_one),
    }
    server = grpc.server(ThreadPoolExecutor(), options=_OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("workload", handlers)])
    server.add_insecure_port(address)
    server.start()
    is_ready.set()
    server.wait_for_termination()


if __name__ == "__main__":
    run(GrpcUnix)
