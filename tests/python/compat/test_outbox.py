"""Calls from code that can't await them: which wait for which."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_airlock.compat.outbox import Outbox

SECONDS = 10


class Host:
    """Answers a call once it is told to; notes in which order they came."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self._arrived = threading.Condition()
        self._answers: dict[str, asyncio.Future[None]] = {}

    async def send(self, request: dict[str, Any]) -> None:
        name = request["args"][0]
        self._answers[name] = asyncio.get_running_loop().create_future()
        with self._arrived:
            self.came.append(name)
            self._arrived.notify_all()
        await self._answers[name]

    def wait_for(self, *names: str) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: set(names) <= set(self.came), SECONDS), self.came

    def answer(self, name: str, error: Exception | None = None) -> None:
        future = self._answers[name]
        settle = (lambda: future.set_result(None)) if error is None else (lambda: future.set_exception(error))
        future.get_loop().call_soon_threadsafe(settle)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def outbox(host: Host) -> Iterator[Outbox]:
    made = Outbox(host.send)
    yield made
    made.close()


def call(method: str, name: str) -> dict[str, Any]:
    return {"kind": "call", "object_id": "ProgressBar", "method": method, "args": (name,), "kwargs": {}}


def test_calls_of_a_method_take_their_turns_and_those_of_others_dont_wait(host: Host, outbox: Outbox) -> None:
    outbox.put(call("update", "first"))
    outbox.put(call("update", "second"))
    outbox.put(call("reset", "other"))
    host.wait_for("first", "other")
    assert "second" not in host.came
    host.answer("first")
    host.wait_for("second")
    assert host.came.index("first") < host.came.index("second")


def test_a_call_that_fails_holds_up_nobody(host: Host, outbox: Outbox) -> None:
    outbox.put(call("update", "first"))
    outbox.put(call("update", "second"))
    host.wait_for("first")
    host.answer("first", ValueError("no such bar"))
    host.wait_for("second")


def test_what_is_under_way_as_it_closes_fails(host: Host, outbox: Outbox) -> None:
    loop = asyncio.new_event_loop()
    try:
        futures = [loop.create_future(), loop.create_future()]
        for name, future in zip(("first", "second"), futures, strict=True):
            outbox.put(call("update", name) | {"future": future, "calling_loop": loop})
        host.wait_for("first")
        outbox.close()
        ended = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), SECONDS))
        assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
    finally:
        loop.close()


def test_what_was_not_begun_as_it_closes_fails() -> None:
    began, may_end = threading.Event(), threading.Event()

    async def stand_still(request: dict[str, Any]) -> None:
        began.set()
        may_end.wait(SECONDS)

    outbox, loop = Outbox(stand_still), asyncio.new_event_loop()
    try:
        outbox.put(call("update", "first"))
        assert began.wait(SECONDS)
        future = loop.create_future()
        outbox.put(call("reset", "second") | {"future": future, "calling_loop": loop})
        outbox.close()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(asyncio.wait_for(future, SECONDS))
    finally:
        may_end.set()
        loop.close()
