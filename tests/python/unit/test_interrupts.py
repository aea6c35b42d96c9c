"""An interrupt, as Ctrl-C is one, at every place where it can come: nothing stays locked, led, lost or unknown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

import comfy_airlock.wire
from channel_side import NIL, Asker, Side
from comfy_airlock.wire.channel import Unsent
from comfy_airlock.wire.errors import ProtocolError
from comfy_airlock.wire.frame import CALL, CANCEL, EVENT, RESULT, build_frame
from interrupting import Interrupt, Interrupting
from processes import until

# Where one comes between opening a file and the with that closes it, the interpreter closes it, and tells.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

EVENT_FRAME = build_frame(EVENT, 7, 0, NIL)


@pytest.fixture
def interrupting() -> Interrupting:
    made = Interrupting(str(Path(comfy_airlock.wire.__file__).parent))
    if sys.version_info >= (3, 13):
        pytest.skip("Python 3.13 begins to trace a function's opcodes one call late")
    return made


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"], autouse=True)
def _cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))


def check_nothing_is_taken(side: Side, where: str) -> None:
    assert not side.channel.lead.turns, f"{where}: nobody is there who reads, and the lead is taken"
    is_locked = side.channel.sender._mutex.locked()
    if is_locked:
        # What closes the channel waits for it.
        side.channel.sender._mutex.release()
    assert not is_locked, f"{where}: nobody is there who sends, and the lock is held"


def interrupted_at_each_place(
    interrupting: Interrupting, prepare: Callable[[Side], object], work: Callable[[Side], object]
) -> Iterator[Side]:
    """For each place in turn a side, at which the work was interrupted there and has left nothing taken."""
    for place in count(1):
        side = Side(is_two=True)
        try:
            prepare(side)
            if not interrupting.run(partial(work, side), place):
                assert place > 4, "nothing is traced"
                return
            check_nothing_is_taken(side, interrupting.where)
            yield side
        finally:
            side.close()


def call_in_shortest_way(side: Side, asker: Asker) -> None:
    side.ask(asker)


def call_in_steps(side: Side, asker: Asker) -> None:
    asker.asked(side.channel, 7, side.channel.call(asker, 7, NIL))


@pytest.mark.parametrize("first", [b"", EVENT_FRAME], ids=["the result", "an event, then the result"])
@pytest.mark.parametrize("is_left", [False, True], ids=["", "over what was left"])
@pytest.mark.parametrize("call", [call_in_shortest_way, call_in_steps])
def test_who_asks_knows_whom_to_cancel_or_nobody_carries_it_out(
    interrupting: Interrupting, call: Callable[[Side, Asker], None], is_left: bool, first: bytes
) -> None:
    askers: list[Asker] = []

    def prepare(side: Side) -> None:
        askers.append(Asker())
        if is_left:
            side.channel.leave()
        side.send(first + build_frame(RESULT, 7, 1, NIL))

    def work(side: Side) -> None:
        try:
            call(side, askers[-1])
        except Unsent:
            assert is_left

    for side in interrupted_at_each_place(interrupting, prepare, work):
        if side.reason is not None:
            continue
        asker, where = askers[-1], interrupting.where
        kinds = [each.kind for each in side.sent()]
        assert kinds in ([], [CALL], [CALL, CANCEL], [CANCEL]), where
        if kinds == [CALL]:
            assert asker.number or asker.told, f"{where}: the call was sent, and who made it can't cancel it"
        elif not asker.number:
            assert not side.channel.made.waiting, f"{where}: nothing was sent, and an answer is waited for"
        side.channel.use_again()
        # It goes on: the answers come in their order, that to the first call before or with the second's.
        again = Asker()
        side.send(build_frame(RESULT, 7, side.next_number(), b"\x02"))
        body = side.ask(again)
        while body is None and not again.told:
            side.channel.read()
        check_nothing_is_taken(side, where)


def take(side: Side) -> None:
    side.calls.extend(filter(None, [side.take()]))


@pytest.mark.parametrize("first", [b"", EVENT_FRAME], ids=["a call", "an event, then a call"])
def test_a_call_is_taken_once_or_the_channel_ends(interrupting: Interrupting, first: bytes) -> None:
    frames = first + build_frame(CALL, 7, 5, NIL)
    for side in interrupted_at_each_place(interrupting, lambda side: side.send(frames), take):
        if side.reason is not None:
            continue
        where, receiver = interrupting.where, side.channel.receiver
        while not side.calls and 5 not in side.channel.taken.unanswered:
            assert receiver.counts or receiver.has_something(0), f"{where}: a call is lost"
            take(side)
        assert [each.number for each in side.calls] == [5], where
        check_nothing_is_taken(side, where)


def test_a_channel_that_ends_leaves_nothing_taken(interrupting: Interrupting) -> None:
    def end(side: Side) -> None:
        side.channel._end(ProtocolError("it makes no sense"))

    for _ in interrupted_at_each_place(interrupting, lambda _: None, end):
        pass


def test_a_cancel_that_would_have_to_wait_is_sent_later(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side()
    try:
        send = side.channel.sender.send_small
        mutex = side.channel.sender._mutex

        def send_and_be_interrupted(frame: bytes) -> None:
            monkeypatch.setattr(side.channel.sender, "send_small", send)
            send(frame)
            mutex.acquire()
            raise Interrupt

        monkeypatch.setattr(side.channel.sender, "send_small", send_and_be_interrupted)
        asker = Asker()
        with pytest.raises(Interrupt):
            side.ask(asker)
        assert asker.may_be_sent
        assert [each.kind for each in side.sent()] == [CALL]
        mutex.release()
        kinds: list[int] = []
        until(lambda: kinds.extend(each.kind for each in side.sent()) or kinds)
        assert kinds == [CANCEL]
    finally:
        side.close()
