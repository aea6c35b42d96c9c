"""An interrupt, as Ctrl-C is one, at every place where it can come: nothing stays locked, led, lost or unknown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import comfy_airlock.wire
from channel_side import NIL, SECONDS_MAX, Asker, Side
from comfy_airlock.wire.channel import Unsent
from comfy_airlock.wire.errors import ProtocolError
from comfy_airlock.wire.frame import CALL, CANCEL, EVENT, RESULT, build_frame
from interrupting import Interrupt, Interrupting

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


def sides() -> Iterator[tuple[int, Side]]:
    """One for each place, until whoever takes them has gone through all."""
    for place in count(1):
        side = Side(is_two=True)
        try:
            yield place, side
        finally:
            side.close()


def check_nothing_is_taken(side: Side, where: str) -> None:
    assert not side.channel.lead.turns, f"{where}: nobody is there who reads, and the lead is taken"
    is_locked = side.channel.sender._mutex.locked()
    if is_locked:
        # What closes the channel waits for it.
        side.channel.sender._mutex.release()
    assert not is_locked, f"{where}: nobody is there who sends, and the lock is held"


@pytest.mark.parametrize("first", [b"", EVENT_FRAME], ids=["the result", "an event, then the result"])
@pytest.mark.parametrize("is_left", [False, True], ids=["", "over what was left"])
@pytest.mark.parametrize("way", ["ask", "call"])
def test_who_asks_knows_whom_to_cancel_or_nobody_carries_it_out(
    interrupting: Interrupting, way: str, is_left: bool, first: bytes
) -> None:
    for place, side in sides():
        asker = Asker()

        def work(side: Side = side, asker: Asker = asker) -> None:
            try:
                if way == "ask":
                    side.ask(asker)
                else:
                    asker.asked(side.channel, 7, side.channel.call(asker, 7, NIL))
            except Unsent:
                assert is_left

        if is_left:
            side.channel.leave()
        side.send(first + build_frame(RESULT, 7, 1, NIL))
        if not interrupting.run(work, place):
            assert place > 4, "nothing is traced"
            break
        where = interrupting.where
        check_nothing_is_taken(side, where)
        if side.reason is not None:
            continue
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


@pytest.mark.parametrize("first", [b"", EVENT_FRAME], ids=["a call", "an event, then a call"])
def test_a_call_is_taken_once_or_the_channel_ends(interrupting: Interrupting, first: bytes) -> None:
    for place, side in sides():
        taken = side.calls

        def work(side: Side = side) -> None:
            side.calls.extend(filter(None, [side.take()]))

        side.send(first + build_frame(CALL, 7, 5, NIL))
        if not interrupting.run(work, place):
            assert place > 4, "nothing is traced"
            break
        where = interrupting.where
        check_nothing_is_taken(side, where)
        if side.reason is not None:
            continue
        while not taken and 5 not in side.channel.taken.unanswered:
            receiver = side.channel.receiver
            assert receiver.counts or receiver.has_something(0), f"{where}: a call is lost"
            taken.extend(filter(None, [side.take()]))
        assert [each.number for each in taken] == [5], where
        check_nothing_is_taken(side, where)


def test_a_channel_that_ends_leaves_nothing_taken(interrupting: Interrupting) -> None:
    for place, side in sides():

        def work(side: Side = side) -> None:
            side.channel._end(ProtocolError("it makes no sense"))

        if not interrupting.run(work, place):
            assert place > 4, "nothing is traced"
            break
        check_nothing_is_taken(side, interrupting.where)


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
        until = time.monotonic() + SECONDS_MAX
        kinds: list[int] = []
        while not kinds and time.monotonic() < until:
            kinds = [each.kind for each in side.sent()]
        assert kinds == [CANCEL]
    finally:
        side.close()
