"""The executor with a fake connection: order of calls, coroutines, cancelling, and what fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from comfy_airlock.calls.arrays import Arrays
from comfy_airlock.calls.service import Service
from comfy_airlock.runtime.executor import Executor
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import NodeNotFound
from comfy_airlock.wire.frame import Cargo, Frame, FrameAssembler, build_frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Lead, Seat
from comfy_airlock.wire.reference import Reference
from feeding import feed

CODEC = Codec()
SECONDS_MAX = 20


class NobodyReads(Lead):
    """The test submits what a worker would read."""

    def wait(self, seat: Seat, until: float | None = None) -> None:
        seat.hang_bell()
        while not seat.taken_care_of:
            seat.sleep()


class ReadElsewhere:
    """A stream with nothing that a loop could watch."""

    def __init__(self) -> None:
        self.lead = NobodyReads(lambda _: None)

    def fileno(self) -> int:
        raise OSError

    def take(self, seat: object, turn: object, /) -> None:
        pass

    def read_now(self) -> None:
        raise AssertionError

    def nothing_came(self) -> None:
        raise AssertionError

    def may_look(self) -> bool:
        return False

    def look(self) -> None:
        raise AssertionError


class NoReferences:
    """The executor is tested with values that have a form of their own."""

    unsettled = ()

    def describe(self, value: Any) -> Reference | None:
        raise AssertionError

    def settle(self) -> list[int]:
        raise AssertionError

    def restore(self, reference: Reference) -> Any:
        raise AssertionError

    def revert(self, receipts: list[int] | None) -> None:
        assert receipts is None


class Plain:
    """A shipper of messages that carry nothing but plain values."""

    references = NoReferences()
    arrays = Arrays(lambda: None)

    def settle(self, _channel: object = None) -> None:
        return None


class Rig:
    """An executor on a thread of its own, what it was asked, and what it answered."""

    is_direct = True

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self.sent: list[Frame] = []
        self.answered = threading.Condition()
        self.calls: dict[int, IncomingCall] = {}
        self.service = Service(CODEC, Plain(), methods, "ink")
        self.executor = Executor(self.service, ReadElsewhere())
        self.ended_with: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="airlock-test-executor")

    def answer(self, call: IncomingCall, kind: int, body: bytes, cargo: Cargo | None = None) -> bool:
        frame = build_frame(kind, call.peer, call.number, body, cargo=cargo)
        if self.calls.pop(call.number, None) is None:
            return False
        with self.answered:
            self.sent += feed(FrameAssembler(), [frame])
            self.answered.notify_all()
        return True

    def answer_plain(self, call: IncomingCall, body: bytes, /) -> None:
        self.answer(call, frames.RESULT, body)

    def answer_aside(self, call: IncomingCall, kind: int, body: bytes, /) -> None:
        self.answer(call, kind, body)

    def fail_aside(self, call: IncomingCall, body: bytes) -> None:
        self.answer(call, frames.ERROR, body)

    def decoded(self, call: IncomingCall) -> None:
        call.body = b""

    def send(
        self, kind: int, peer: int, call: int, body: bytes, *, cargo: Cargo | None = None, turn: Any = None
    ) -> None:
        raise AssertionError("only answers are sent here")

    def _run(self) -> None:
        try:
            self.executor.run()
        except BaseException as error:
            self.ended_with = error

    def start(self) -> Rig:
        self.thread.start()
        return self

    def call(self, number: int, method: str, *args: Any, **keywords: Any) -> None:
        self.call_with(number, CODEC.encode([method, list(args), keywords]))

    def call_with(self, number: int, body: bytes) -> None:
        call = self.calls[number] = IncomingCall.of(self, 9, number, body)
        self.executor.submit(call)

    def cancel(self, number: int) -> None:
        if number in self.calls:
            self.calls[number].cancel()

    def wait(self, count: int) -> list[Frame]:
        with self.answered:
            assert self.answered.wait_for(lambda: len(self.sent) >= count, SECONDS_MAX)
            return list(self.sent)

    def end(self) -> list[Frame]:
        if not self.thread.is_alive() and self.thread.ident is None:
            self.start()
        self.executor.stop()
        self.thread.join(SECONDS_MAX)
        assert not self.thread.is_alive()
        return self.sent


def results(answers: list[Frame]) -> list[tuple[int, Any]]:
    return [(each.call, CODEC.decode(each.body)) for each in answers]


def error_of(answer: Frame) -> dict[str, Any]:
    assert answer.kind == frames.ERROR
    body: dict[str, Any] = CODEC.decode(answer.body)
    return body


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def test_a_call_that_was_taken_comes_before_those_that_another_thread_has_read_since() -> None:
    ran: list[int] = []

    class Carrying:
        def begin(self, call: IncomingCall) -> None:
            ran.append(call.number)
            if call.number == 2:
                executor.stop()

    class Taking(ReadElsewhere):
        def take(self, seat: object, turn: object) -> IncomingCall | None:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
            # The lead is free again before it returns.
            executor.submit(IncomingCall.of(None, 1, 2, b""))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            return IncomingCall.of(None, 1, 1, b"")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    executor = Executor(Carrying(), Taking())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    executor.run()
    assert ran == [1, 2]


def test_synchronous_calls_run_in_order_and_answer_their_caller() -> None:
    rig = Rig(add=lambda a, b=1: a + b)
    rig.call(1, "add", 1)
    rig.call(2, "add", 1, b=5)
    answers = rig.end()
    assert results(answers) == [(1, 2), (2, 6)]
    assert {each.peer for each in answers} == {9}


def test_coroutine_is_awaited_and_synchronous_calls_still_run_after_it() -> None:
    rig = Rig(later=later, plain=lambda: "plain").start()
    rig.call(1, "later", (1, 2))
    rig.wait(1)
    rig.call(2, "plain")
    rig.wait(2)
    assert results(rig.end()) == [(1, (1, 2)), (2, "plain")]


def test_calls_queued_before_the_loop_existed_run_on_it() -> None:
    rig = Rig(later=later, plain=lambda: "plain")
    for number, method in enumerate(["plain", "later", "plain", "later"], 1):
        rig.call(number, method, *([number] if method == "later" else []))
    rig.start()
    rig.wait(4)
    assert sorted(results(rig.end())) == [(1, "plain"), (2, 2), (3, "plain"), (4, 4)]


def test_synchronous_call_runs_while_a_coroutine_waits() -> None:
    gate: list[Any] = []

    async def wait() -> str:
        gate.append((asyncio.get_running_loop(), asyncio.Event()))
        await gate[0][1].wait()
        return "waited"

    def release() -> str:
        gate[0][1].set()
        return "released"

    rig = Rig(wait=wait, release=release).start()
    rig.call(1, "wait")
    rig.call(2, "release")
    rig.wait(2)
    assert results(rig.end()) == [(2, "released"), (1, "waited")]


def test_call_cancelled_before_it_runs_never_runs() -> None:
    ran: list[int] = []
    rig = Rig(note=ran.append)
    rig.call(1, "note", 1)
    rig.call(2, "note", 2)
    rig.cancel(1)
    first, _ = rig.end()
    assert error_of(first)["code"] == "cancelled"
    assert ran == [2]


def test_waiting_coroutine_is_cancelled_and_can_clean_up() -> None:
    cleaned: list[str] = []
    waiting = threading.Event()

    async def forever() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    rig = Rig(forever=forever).start()
    rig.call(1, "forever")
    assert waiting.wait(SECONDS_MAX)
    rig.cancel(1)
    (answer,) = rig.wait(1)
    rig.end()
    assert error_of(answer)["code"] == "cancelled"
    assert cleaned == ["up"]


def test_cancelled_coroutine_cleans_up_before_its_answer_though_other_threads_are_at_work() -> None:
    rig = Rig()
    let_go, waiting = threading.Event(), threading.Event()
    cleaned: list[list[Frame]] = []

    async def forever() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append([each for each in rig.sent if each.call == 2])

    rig.service.offer({"block": lambda: let_go.wait(SECONDS_MAX), "forever": forever})
    calls = {number: IncomingCall.of(rig, 9, number, CODEC.encode([method, [], {}])) for number, method in
             [(1, "block"), (2, "forever")]}  # fmt: skip
    rig.calls.update(calls)
    # As in a host, whose calls run on as many threads.
    threads = [threading.Thread(target=rig.service.run, args=(each,), name="airlock-test") for each in calls.values()]
    for each in threads:
        each.start()
    assert waiting.wait(SECONDS_MAX)
    rig.cancel(2)
    (answer,) = rig.wait(1)
    let_go.set()
    for each in threads:
        each.join(SECONDS_MAX)
    assert (answer.call, error_of(answer)["code"], cleaned) == (2, "cancelled", [[]])


def test_coroutine_that_is_cancelled_while_its_loop_is_kept_is_answered_at_once() -> None:
    waiting, blocked, let_go = threading.Event(), threading.Event(), threading.Event()

    async def forever() -> None:
        waiting.set()
        await asyncio.Event().wait()

    def block() -> None:
        blocked.set()
        assert let_go.wait(SECONDS_MAX)

    rig = Rig(forever=forever, block=block).start()
    rig.call(1, "forever")
    assert waiting.wait(SECONDS_MAX)
    rig.call(2, "block")
    assert blocked.wait(SECONDS_MAX)
    rig.cancel(1)
    (answer,) = rig.wait(1)
    assert (answer.call, error_of(answer)["code"]) == (1, "cancelled")
    let_go.set()
    rig.wait(2)
    rig.end()


@pytest.mark.parametrize("loop_runs", [False, True], ids=["before the loop exists", "on a running loop"])
def test_cancel_before_the_coroutines_task_runs_cancels_it(loop_runs: bool) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    cleaned: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            # A second cancel for the same request would interrupt this.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            cleaned.append("up")

    def begin() -> Any:
        begun.set()
        assert cancelled.wait(SECONDS_MAX)
        return forever()

    rig = Rig(begin=begin, later=later).start()
    if loop_runs:
        rig.call(1, "later", "loop")
        rig.wait(1)
    rig.call(2, "begin")
    assert begun.wait(SECONDS_MAX)
    rig.cancel(2)
    cancelled.set()
    answer = rig.wait(2 if loop_runs else 1)[-1]
    # The executor keeps nothing of it.
    rig.call(3, "later", "next")
    rig.wait(3 if loop_runs else 2)
    rig.end()
    assert (answer.call, error_of(answer)["code"], cleaned) == (2, "cancelled", ["up"])
    assert (rig.service.tasks, rig.calls) == ([], {})


def test_cancel_after_the_answer_is_forgotten() -> None:
    rig = Rig(later=later).start()
    rig.call(1, "later", 1)
    rig.wait(1)
    rig.cancel(1)
    rig.cancel(77)
    # The number may be used again.
    rig.call(1, "later", 2)
    rig.wait(2)
    assert results(rig.end()) == [(1, 1), (1, 2)]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_should_end_the_process_is_no_answer(asynchronous: bool, ending: BaseException) -> None:
    def leave() -> None:
        raise ending

    async def leave_later() -> None:
        raise ending

    rig = Rig(leave=leave_later if asynchronous else leave).start()
    rig.call(1, "leave")
    rig.thread.join(SECONDS_MAX)
    assert rig.ended_with is ending
    assert rig.sent == []
    # The connection ends afterwards, and says so.
    rig.executor.stop()


def test_unknown_method_is_a_bad_request() -> None:
    rig = Rig()
    rig.call(1, "nothing")
    (answer,) = rig.end()
    assert (error_of(answer)["code"], error_of(answer)["pack"]) == ("bad_request", "ink")


@pytest.mark.parametrize("body", [b"", b"\xc1", CODEC.encode(5), CODEC.encode([1]), CODEC.encode(["f", 5, 5])])
def test_body_that_is_no_call_is_answered_and_the_next_call_runs(body: bytes) -> None:
    rig = Rig(f=lambda: "fine")
    rig.call_with(1, body)
    rig.call(2, "f")
    first, second = rig.end()
    assert first.kind == frames.ERROR
    assert results([second]) == [(2, "fine")]


def test_result_that_cannot_cross_says_where() -> None:
    rig = Rig(make=lambda: ({"lock": threading.Lock()},), make_later=lambda: later(threading.Lock())).start()
    rig.call(1, "make")
    rig.call(2, "make_later")
    first, second = rig.wait(2)
    rig.end()
    assert error_of(first)["code"] == error_of(second)["code"] == "value_unsupported"
    assert "value[0]['lock']" in error_of(first)["message"]


@pytest.mark.parametrize("make", [lambda: bytes(2000), lambda: later(bytes(2000))], ids=["sync", "async"])
def test_result_over_the_limit_is_answered_with_that_and_the_worker_lives(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_airlock.wire.frame.FRAME_BYTES_MAX", 1000)
    rig = Rig(make=make, f=lambda: "fine").start()
    rig.call(1, "make")
    rig.call(2, "f")
    first, second = sorted(rig.wait(2), key=lambda answer: answer.call)
    rig.end()
    body = error_of(first)
    assert (body["code"], body["pack"]) == ("limit_exceeded", "ink")
    assert "2003 bytes is over the limit of 1000" in body["message"]
    assert body["hint"]
    assert results([second]) == [(2, "fine")]


def test_exception_over_the_limit_is_answered_with_that_and_the_worker_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_airlock.wire.frame.FRAME_BYTES_MAX", 1000)
    rig = Rig(fail=fail, f=lambda: "fine")
    rig.call(1, "fail", "x" * 900)
    rig.call(2, "f")
    first, second = rig.end()
    assert error_of(first)["code"] == "limit_exceeded"
    assert results([second]) == [(2, "fine")]


def test_exception_that_holds_itself_is_answered_and_the_worker_lives() -> None:
    def fail_with_itself() -> None:
        error: Any = ValueError("text")
        error.own = error
        raise error

    rig = Rig(fail=fail_with_itself, f=lambda: "fine")
    rig.call(1, "fail")
    rig.call(2, "f")
    first, second = rig.end()
    assert error_of(first)["exception"]["state"] == {"own": "ValueError('text')"}
    assert results([second]) == [(2, "fine")]


def fail(text: str) -> None:
    raise ValueError(text)


async def fail_later(text: str) -> None:
    await asyncio.sleep(0)
    raise ValueError(text)


@pytest.mark.parametrize("method", [fail, fail_later], ids=["sync", "async"])
def test_exception_is_answered_with_a_traceback_that_begins_in_the_packs_code(method: Any) -> None:
    rig = Rig(fail=method).start()
    rig.call(1, "fail", "bad radius")
    (answer,) = rig.wait(1)
    rig.end()
    body = error_of(answer)
    assert (body["code"], body["pack"], body["message"]) == (
        "remote_exception", "ink", "pack ink: ValueError: bad radius",
    )  # fmt: skip
    assert body["exception"]["types"][0] == "builtins:ValueError"
    assert "/calls/service.py" not in body["exception"]["traceback"]
    assert "in fail" in body["exception"]["traceback"]


def test_airlocks_own_error_keeps_its_code() -> None:
    def missing() -> None:
        raise NodeNotFound("pack ink has no node 'x'", hint="it has y")

    rig = Rig(missing=missing)
    rig.call(1, "missing")
    (answer,) = rig.end()
    assert error_of(answer) == {
        "code": "node_not_found", "message": "pack ink has no node 'x'", "hint": "it has y", "pack": "ink",
    }  # fmt: skip


def test_exception_whose_text_is_no_utf8_is_answered_and_the_worker_lives() -> None:
    rig = Rig(fail=fail, f=lambda: 1)
    rig.call(1, "fail", "x")
    rig.service.offer({"fail": lambda _: fail("cannot read \udcff.png")})
    rig.call(2, "f")
    first, second = rig.end()
    assert "\\udcff.png" in error_of(first)["message"]
    assert results([second]) == [(2, 1)]
