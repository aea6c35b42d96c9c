"""The three routes between a host and the calls pack: the line, the relay, and memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, connect
from comfy_airlock.calls.inference import InferenceMode
from comfy_airlock.calls.pair import Pair
from comfy_airlock.calls.service import Whole
from comfy_airlock.host.lines import PackLink
from comfy_airlock.runtime import host_link
from comfy_airlock.runtime.executor import Executor
from comfy_airlock.runtime.main import Worker
from comfy_airlock.runtime.node_pack import NodePack
from comfy_airlock.runtime.streams import Streams
from comfy_airlock.wire import connection
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.frame import Frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.recipients import PendingCall, fail_all
from memory_link import MemoryLink

FOLDER = Path(__file__).resolve().parents[2] / "packs" / "calls"
ROUTES = ("memory", "line", "relay")


@contextmanager
def route_to_pack(route: str) -> Generator[Pack]:
    """The calls pack over one of :data:`ROUTES`."""
    if route == "memory":
        with _in_memory() as pack:
            yield pack
        return
    with connect_by(route) as airlock:
        pack = airlock.open(FOLDER)
        # Started, and its line there if it gets one.
        pack.call("Echo")
        assert (airlock._lines.pack(pack._peer).line is not None) == (route == "line")
        yield pack


def pair_of(pack: Pack) -> Pair:
    """The pair with the only worker of a pack."""
    assert isinstance(pack._workers, Pair)
    return pack._workers


def connect_by(route: str) -> Airlock:
    """A host whose calls go by line or relay, as they can."""
    with pytest.MonkeyPatch.context() as patch:
        if route == "relay":
            patch.setattr(connection, "_FEATURES", ["credit"])
        return connect()


@contextmanager
def sharing_by(route: str) -> Generator[Airlock]:
    """A host whose calls go by line or relay, and that shares memory with its workers either way."""
    with pytest.MonkeyPatch.context() as patch, connect() as airlock:
        if route == "relay":
            # There is a line, which is a condition of shared memory, and no call goes over it.
            patch.setattr(PackLink, "_route", lambda self: (self._connection, self.peer))
            patch.setattr(Pair, "goes_by", lambda _self, _line: None)
        yield airlock


class _WorkerSide:
    """What a worker's main thread and its line's owner do, on a thread of this process."""

    def __init__(self, link: MemoryLink) -> None:
        self.streams = Streams()
        self.channel = Channel([link], Codec(), "the host", self.streams)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        inference = InferenceMode()
        worker = Worker(NodePack("calls", str(FOLDER)), inference)
        route = (self.channel, 1)
        methods = {"run": Whole(worker.run), "describe": worker.describe}
        self.pair = Pair(lambda: route, route, reveals=True, methods=methods, pack="calls", inference=inference)
        self.executor = Executor(self.pair.service, self.streams)
        self.called = self.executor.submit
        self.laden = lambda frame: self.pair.laden(frame, is_direct=True)
        host_link._LATEST["host"] = self.pair
        self.channel.attach(self, [])
        self.streams.add(self.channel)
        self.channel.keep("airlock-memory-worker")
        self.thread = threading.Thread(target=self.executor.run, name="airlock-memory-main")
        self.thread.start()

    def gave_up(self) -> None: ...

    def received(self, frame: Frame) -> None:
        self.pair.received(frame, self.executor.submit)

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        fail_all(unanswered, reason)
        # It is still polled, as a worker's connection is: who is about to wait finds that there is nothing more.
        self.streams.lead.end()
        self.executor.stop()


class _HostSide:
    """What a host's line does."""

    def __init__(self, link: MemoryLink) -> None:
        self.channel = Channel([link], Codec(), "the worker")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        self.link = PackLink(self.channel, 1, "calls")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        self.link.line = self.channel
        self.laden = lambda frame: self.link.pair.laden(frame, is_direct=True)
        self.channel.attach(self, [])
        self.channel.keep("airlock-memory-host")

    def called(self, call: IncomingCall) -> None:
        self.link.called(call)

    def gave_up(self) -> None: ...

    def received(self, frame: Frame) -> None:
        self.link.received(frame, is_direct=True)

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        self.link.line_ended(self.channel)
        fail_all(unanswered, reason)


@contextmanager
def _in_memory() -> Generator[Pack]:
    near, far = MemoryLink.pair()
    worker, host = _WorkerSide(far), _HostSide(near)
    nobody: Any = None
    try:
        yield Pack(nobody, host.link.peer, host.link.pair, "calls", str(FOLDER), ())
    finally:
        host.link.close()
        worker.channel.close()
        worker.thread.join(20)
        assert not worker.thread.is_alive()
        worker.streams.close()
        del host_link._LATEST["host"]
        for name in [each for each in sys.modules if each.startswith("airlock_pack_calls")]:
            del sys.modules[name]
