"""Who waits for credit on the relay: not past its deadline, not when it is cancelled, and no loop waits with it."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, connect
from comfy_airlock.calls.context import report_progress
from comfy_airlock.calls.pair import Pair
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.errors import Cancelled, DeadlineExceeded
from comfy_airlock.wire.frame import HEADER_BYTES, Frame, build_frame
from interrupting import Interrupt
from scripted_server import PACK, WELCOME, Peer, ScriptedServer, pair_of

SECONDS_MAX = 20
WINDOW = 1000
FULL = bytes(2 * WINDOW)
"""What uses the window up."""


class Jam:
    """A host whose first call has used up its credit for :data:`PACK`, and the server, which gives none by itself."""

    def __init__(self, airlock: Airlock, peer: Peer, first: Frame) -> None:
        self.airlock = airlock
        self.peer = peer
        self.first = first

    @property
    def pair(self) -> Pair:
        return pair_of(self.airlock)

    @property
    def left(self) -> int:
        """Bytes of the window."""
        credit = self.airlock._connection.credit
        assert credit is not None
        return credit._left[PACK]

    def give(self) -> None:
        """Gives the host its whole window again."""
        self.peer.send_bytes(build_frame(frames.CREDIT, PACK, WINDOW - self.left))

    def read_call(self) -> Any:
        """The argument of the next frame, which is a call."""
        frame = self.peer.read()
        assert frame.kind == frames.CALL
        return self.peer.codec.decode(frame.body)[1][0]


@contextmanager
def jammed(folder: Path) -> Generator[Jam]:
    peers: list[Peer] = []
    is_welcomed, is_over = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read()
        peer.send(frames.WELCOME, 0, {**WELCOME, "window": WINDOW})
        peers.append(peer)
        is_welcomed.set()
        assert is_over.wait(3 * SECONDS_MAX)

    with ScriptedServer(folder, script) as server, connect(server.path) as airlock, ThreadPoolExecutor(1) as pool:
        assert is_welcomed.wait(SECONDS_MAX)
        first = pool.submit(pair_of(airlock).call, "run", (FULL,), {})
        try:
            jam = Jam(airlock, peers[0], peers[0].read())
            # The test fails rather than to hang.
            peers[0]._connection.settimeout(SECONDS_MAX)
            assert jam.left < 0
            yield jam
            jam.peer.send(frames.RESULT, jam.first.call, "first", PACK)
            assert first.result(SECONDS_MAX) == "first"
        finally:
            is_over.set()


def call(jam: Jam, *args: Any, **options: Any) -> Any:
    return jam.pair.call("run", args, {}, **options)


async def acall(jam: Jam, *args: Any, **options: Any) -> Any:
    return await jam.pair.acall("run", args, {}, **options)


def in_coroutine(jam: Jam, *args: Any, **options: Any) -> Any:
    return asyncio.run(acall(jam, *args, **options))


def held_up(jam: Jam, action: Callable[[], object]) -> threading.Timer:
    """Has something done once somebody waits for credit; whoever else does, fails by the end of the test."""

    def wait() -> None:
        credit = jam.airlock._connection.credit
        assert credit is not None
        until = time.monotonic() + SECONDS_MAX
        while not credit.is_awaited and time.monotonic() < until:
            time.sleep(0.001)
        action()

    timer = threading.Timer(0, wait)
    timer.start()
    return timer


@pytest.mark.parametrize("caller", [call, in_coroutine])
def test_deadline_that_passes_without_credit_ends_the_call_of_which_nothing_was_sent(
    tmp_path: Path, caller: Any
) -> None:
    with jammed(tmp_path) as jam:
        failsafe = threading.Timer(SECONDS_MAX / 2, jam.give)
        failsafe.start()
        with pytest.raises(DeadlineExceeded, match="pack ink: the call took longer than its deadline of 50 ms"):
            caller(jam, lambda: "held by nobody", timeout=0.05)
        failsafe.cancel()
        assert jam.pair.references.counts[0] == 0
        assert jam.airlock._connection.credit is not None
        assert not jam.airlock._connection.credit.is_awaited
        jam.give()
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(call, jam, "next")
            frame = jam.peer.read()
            # It is the next frame of all.
            assert jam.peer.codec.decode(frame.body)[1] == ["next"]
            jam.peer.result(frame, "fine")
            assert following.result(SECONDS_MAX) == "fine"


@pytest.mark.parametrize("caller", [call, in_coroutine])
def test_call_that_waited_for_credit_is_sent_with_the_time_that_it_has_left(tmp_path: Path, caller: Any) -> None:
    with jammed(tmp_path) as jam, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(caller, jam, "waits", timeout=SECONDS_MAX)
        held_up(jam, lambda: (time.sleep(0.05), jam.give())).join()
        frame = jam.peer.read()
        assert frame.deadline_ms is not None
        assert 0 < frame.deadline_ms < SECONDS_MAX * 1000 - 40
        jam.peer.result(frame, "fine")
        assert waits.result(SECONDS_MAX) == "fine"


def test_loop_goes_on_while_its_coroutines_wait_for_credit_and_they_send_in_order(tmp_path: Path) -> None:
    async def main(jam: Jam) -> list[Any]:
        calls = [asyncio.create_task(acall(jam, number)) for number in range(20)]
        for _ in range(20):
            await asyncio.sleep(0.001)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, jam.give)
        calls += [asyncio.create_task(acall(jam, number)) for number in range(20, 40)]

        def answer_all() -> list[Any]:
            asked: list[Any] = []
            for _ in range(40):
                frame = jam.peer.read()
                asked.append(jam.peer.codec.decode(frame.body)[1][0])
                jam.peer.result(frame, "fine")
                jam.peer.send_bytes(build_frame(frames.CREDIT, PACK, HEADER_BYTES + len(frame.body)))
            return asked

        asked = await loop.run_in_executor(None, answer_all)
        assert await asyncio.gather(*calls) == ["fine"] * 40
        return asked

    with jammed(tmp_path) as jam:
        failsafe = threading.Timer(SECONDS_MAX / 2, jam.airlock.close)
        failsafe.start()
        try:
            assert asyncio.run(main(jam)) == list(range(40))
        finally:
            failsafe.cancel()


def test_coroutine_that_is_cancelled_while_it_waits_for_credit_sends_nothing(tmp_path: Path) -> None:
    async def main(jam: Jam) -> None:
        first, second = (asyncio.create_task(acall(jam, each)) for each in ("first", "second"))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, jam.give)
        frame = await loop.run_in_executor(None, jam.peer.read)
        assert jam.peer.codec.decode(frame.body)[1] == ["second"]
        jam.peer.result(frame, "fine")
        assert await second == "fine"

    with jammed(tmp_path) as jam:
        asyncio.run(main(jam))


def test_call_is_cancelled_with_the_one_that_it_is_made_for_while_it_waits_for_credit(tmp_path: Path) -> None:
    with jammed(tmp_path) as jam:
        ended: list[BaseException] = []
        has_ended = threading.Event()

        def call_back() -> None:
            try:
                call(jam, "never sent")
            except BaseException as error:
                ended.append(error)
            has_ended.set()

        jam.pair.service.offer({"call_back": call_back})
        jam.peer.send(frames.CALL, 5, ["call_back", [], {}], PACK)
        held_up(jam, lambda: jam.peer.send_bytes(build_frame(frames.CANCEL, PACK, 5))).join()
        assert has_ended.wait(SECONDS_MAX)
        assert [type(each) for each in ended] == [Cancelled]
        jam.give()
        answer = jam.peer.read()
        assert (answer.kind, answer.call) == (frames.RESULT, 5)


def test_cancels_and_releases_need_no_credit(tmp_path: Path) -> None:
    async def main(jam: Jam) -> None:
        jam.give()
        own = asyncio.create_task(acall(jam, FULL))
        loop = asyncio.get_running_loop()
        frame = await loop.run_in_executor(None, jam.peer.read)
        waits = asyncio.create_task(acall(jam, "waits"))
        await asyncio.sleep(0.01)
        own.cancel()
        jam.pair.release({5: 1})
        sent = [await loop.run_in_executor(None, jam.peer.read) for _ in range(2)]
        assert sorted((each.kind, each.call) for each in sent) == [(frames.CANCEL, frame.call), (frames.RELEASE, 0)]
        waits.cancel()
        await asyncio.wait([own, waits])

    with jammed(tmp_path) as jam:
        asyncio.run(main(jam))


@pytest.fixture
def interrupting_signal() -> Iterator[None]:
    """SIGUSR1 raises in the main thread."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("interrupting_signal")
def test_interrupt_of_a_thread_that_waits_for_credit_takes_none(tmp_path: Path) -> None:
    main_thread = threading.get_ident()
    with jammed(tmp_path) as jam:
        before = jam.left
        for send in (lambda: call(jam, "never sent"), lambda: jam.pair.emit("never", "sent")):
            interrupting = held_up(jam, lambda: signal.pthread_kill(main_thread, signal.SIGUSR1))
            with pytest.raises(Interrupt):
                send()
            interrupting.join()
        assert jam.left == before
        jam.give()
        jam.pair.emit("event", 1)
        assert jam.peer.read().kind == frames.EVENT


def test_interrupt_before_anything_was_sent_gives_the_credit_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(frame: bytes, sent: list[int]) -> None:
        raise Interrupt

    with jammed(tmp_path) as jam:
        jam.give()
        jam.pair.emit("event", 1)
        before = jam.left
        monkeypatch.setattr(jam.airlock._connection.sender, "send", interrupt)
        with pytest.raises(Interrupt):
            call(jam, FULL)
        assert jam.left == before
        monkeypatch.undo()


def test_answer_of_a_coroutine_waits_for_credit_and_its_loop_does_not(tmp_path: Path) -> None:
    async def main(jam: Jam) -> None:
        answered = asyncio.Event()

        async def answer() -> str:
            report_progress(1, 2, "dropped, as there is no credit")
            answered.set()
            return "at last"

        jam.pair.service.offer({"answer": answer})
        loop = asyncio.get_running_loop()
        jam.give()
        own = asyncio.create_task(acall(jam, FULL))
        frame = await loop.run_in_executor(None, jam.peer.read)
        called_back = build_frame(
            frames.CALL, PACK, 9, jam.peer.codec.encode(["answer", [], {}]), parent=frame.call
        )  # fmt: skip
        jam.peer.send_bytes(called_back)
        await answered.wait()
        for _ in range(20):
            await asyncio.sleep(0.001)
        jam.give()
        reply = await loop.run_in_executor(None, jam.peer.read)
        assert (reply.kind, reply.call, jam.peer.codec.decode(reply.body)) == (frames.RESULT, 9, "at last")
        jam.peer.result(frame, "fine")
        assert await own == "fine"
        jam.pair.service._methods.pop("answer")

    with jammed(tmp_path) as jam:
        failsafe = threading.Timer(SECONDS_MAX / 2, jam.airlock.close)
        failsafe.start()
        try:
            asyncio.run(main(jam))
        finally:
            failsafe.cancel()


def test_loop_that_is_closed_while_its_coroutines_wait_for_credit_leaves_nothing_in_line(tmp_path: Path) -> None:
    with jammed(tmp_path) as jam:
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(acall(jam, number)) for number in range(5)]
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        credit = jam.airlock._connection.credit
        assert credit is not None
        assert credit.is_awaited
        jam.give()
        until = time.monotonic() + SECONDS_MAX
        while credit.is_awaited:
            assert time.monotonic() < until
            time.sleep(0.001)
        while tasks:
            # Left where they await, which is what this is about.
            setattr(tasks.pop(), "_log_destroy_pending", False)
        gc.collect()
        jam.pair.emit("event", 1)
        assert jam.peer.read().kind == frames.EVENT
