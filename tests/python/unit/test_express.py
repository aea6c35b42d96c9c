"""The shortest way for calls, beside what it does in steps: who reads, what is handed on, what an interrupt leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from channel_side import NIL, Asker, Side
from comfy_airlock.wire.channel import Unsent
from comfy_airlock.wire.errors import Disconnected
from comfy_airlock.wire.frame import CALL, CANCEL, ERROR, EVENT, RESULT, Frame, build_frame
from comfy_airlock.wire.lead import Seat


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)))
    made = Side()
    yield made
    made.close()


def test_the_result_that_comes_next_is_given_to_who_asks(side: Side) -> None:
    side.send(build_frame(RESULT, 7, 1, b"\x01"), b"")
    asker = Asker()
    assert side.ask(asker) == b"\x01"
    assert (asker.told, side.channel.made.waiting, side.channel.lead.turns) == ([], {}, {})
    assert side.sent() == [Frame(CALL, 7, 1, NIL)]


@pytest.mark.parametrize(
    "first",
    [
        build_frame(CALL, 7, 5, NIL),
        build_frame(EVENT, 7, 0, NIL),
        build_frame(RESULT, 7, 1, b"\x01") + build_frame(EVENT, 7, 0, NIL),
        build_frame(ERROR, 7, 1, b"\x80"),
        build_frame(RESULT, 7, 1, b"\x01")[:10],
    ],
    ids=["a call", "an event", "more than the result", "an error", "a part of it"],
)
def test_whatever_else_comes_is_handed_to_whom_it_belongs_to(side: Side, first: bytes) -> None:
    side.send(first)
    asker = Asker()
    assert side.ask(asker) is None
    handed = [*asker.told, *side.calls, *side.others, *side.channel.made.waiting]
    assert handed, "neither told, nor waiting for the rest"
    assert not side.channel.lead.turns


def test_a_result_that_is_more_than_is_read_at_once_is_told_once_it_is_there(side: Side) -> None:
    body = bytes([0xC6, 0, 3, 0, 0]) + bytes(3 << 16)
    writing = threading.Thread(target=side.send, args=[build_frame(RESULT, 7, 1, body)])
    writing.start()
    asker = Asker()
    assert side.ask(asker) is None
    while side.channel.made.waiting:
        side.channel.read()
    writing.join()
    assert [bytes(each.body) for each in asker.told if isinstance(each, Frame)] == [body]


def test_where_another_thread_reads_it_is_left_to_that(side: Side) -> None:
    turn = [0]
    side.channel.lead.turns[None] = turn
    asker = Asker()
    assert side.ask(asker) is None
    assert side.channel.made.waiting == {1: asker}
    side.send(build_frame(RESULT, 7, 1, NIL))
    side.channel.read()
    side.channel.lead.give_up(turn)
    assert asker.told == [Frame(RESULT, 7, 1, NIL)]


def test_what_asks_on_the_thread_that_reads_such_as_a_finalizer_does_not_read(side: Side) -> None:
    inner: list[Asker] = []

    def ask_again() -> None:
        inner.append(Asker())
        assert side.ask(inner[0]) is None

    side.on_called = ask_again
    # With something behind it, so that it is handed on while this thread has the lead.
    side.send(build_frame(CALL, 7, 5, NIL), build_frame(RESULT, 7, 1, NIL))
    outer = Asker()
    assert side.ask(outer) is None
    assert outer.told == [Frame(RESULT, 7, 1, NIL)]
    assert side.channel.made.waiting == {2: inner[0]}
    assert not side.channel.lead.turns


def test_who_was_taken_care_of_meanwhile_reads_nothing(side: Side) -> None:
    asker = Asker()
    asker.taken_care_of = True
    assert side.ask(asker) is None
    assert not side.channel.lead.turns


def test_an_interrupt_while_nothing_was_read_leaves_the_channel_as_it_was(side: Side) -> None:
    side.link.interrupts.add("recv")
    asker = Asker()
    with pytest.raises(KeyboardInterrupt):
        side.ask(asker)
    assert side.channel.made.waiting == {1: asker}
    assert side.channel.cancel(7, asker.number)
    assert not side.channel.lead.turns
    side.send(build_frame(RESULT, 7, 1, NIL))
    side.send(build_frame(RESULT, 7, 2, b"\x02"))
    again = Asker()
    if side.ask(again) is None:
        # Both in one piece, or the answer to the first alone.
        while not again.told:
            side.channel.read()
    assert side.reason is None


def test_who_is_interrupted_once_the_call_is_sent_knows_what_to_cancel(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = Asker()

    class Turns(dict[Any, Any]):
        def setdefault(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(side.channel.lead, "turns", Turns())
    with pytest.raises(KeyboardInterrupt):
        side.ask(asker)
    assert [each.kind for each in side.sent()] == [CALL]
    assert side.channel.cancel(7, asker.number)
    assert [each.kind for each in side.sent()] == [CANCEL]


def test_an_interrupt_before_anything_is_sent_forgets_the_call(side: Side) -> None:
    side.link.interrupts.add("send")
    with pytest.raises(KeyboardInterrupt):
        side.ask(Asker())
    assert side.channel.made.waiting == {}
    # In vain here, but who was interrupted can't know that.
    assert [each.kind for each in side.sent()] == [CANCEL]
    assert not side.channel.sender.is_torn


def test_an_interrupt_in_the_middle_of_a_frame_ends_the_channel(side: Side) -> None:
    side.link.interrupts.add("half")
    asker = Asker()
    with pytest.raises(KeyboardInterrupt):
        side.ask(asker)
    assert side.reason is not None
    assert "in the middle of a message" in side.reason.message


def test_asking_over_what_has_ended_tells_that_nothing_was_sent(side: Side) -> None:
    side.channel._end(Disconnected("gone"))
    with pytest.raises(Unsent, match="gone"):
        side.ask(Asker())


def test_who_asks_is_told_of_an_end_in_place_of_an_answer(side: Side) -> None:
    side.far.close()
    asker = Asker()
    try:
        assert side.ask(asker) is None
        assert [type(each) for each in asker.told] == [Disconnected]
    except Unsent:
        assert asker.told == []


def test_a_small_call_is_given_to_who_takes_it_and_others_to_their_owner(side: Side) -> None:
    side.send(build_frame(CALL, 7, 5, b"\x01"))
    call = side.take()
    assert call is not None
    assert (call.number, call.peer, bytes(call.body), side.calls) == (5, 7, b"\x01", [])
    for number, body in enumerate([b"\x01", b"\xc5\x08\x00" + bytes(2048)], 6):
        side.send(build_frame(CALL, 7, number, body, deadline_ms=1000 if number == 6 else None))
        assert side.take() is None
    assert [(each.number, each.size) for each in side.calls] == [(6, 0), (7, 2051)]
    assert list(side.channel.taken.unanswered) == [5, 6, 7]


def test_a_call_that_comes_while_another_is_unanswered_goes_to_the_owner_which_has_an_order(side: Side) -> None:
    side.send(build_frame(CALL, 7, 5, NIL))
    assert side.take() is not None
    side.send(build_frame(CALL, 7, 6, NIL))
    assert side.take() is None
    assert [each.number for each in side.calls] == [6]


def test_a_part_of_a_frame_is_not_taken_for_a_call(side: Side) -> None:
    frame = build_frame(CALL, 7, 5, NIL)
    side.send(frame[:3])
    assert side.take() is None
    side.send(frame[3:] + build_frame(CALL, 7, 6, NIL))
    assert side.take() is None
    assert side.calls == []
    side.channel.read()
    assert [each.number for each in side.calls] == [5, 6]


def test_where_another_thread_reads_no_call_is_taken(side: Side) -> None:
    turn = [0]
    side.channel.lead.turns[None] = turn
    side.send(build_frame(CALL, 7, 5, NIL))
    assert side.take() is None
    assert side.channel.lead.turns == {None: turn}
    assert side.calls == []


def test_a_seat_that_was_taken_care_of_takes_no_call_before_what_is_queued(side: Side) -> None:
    side.send(build_frame(CALL, 7, 5, NIL))
    seat = Seat()
    seat.call_back()
    assert side.channel.take(seat, [threading.get_ident()]) is None
    assert not side.channel.lead.turns
    assert side.calls == []


def test_where_a_signal_may_come_again_and_again_it_is_left_to_who_asks_the_kernel_for_timers(side: Side) -> None:
    side.send(build_frame(CALL, 7, 5, NIL))
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        assert side.take() is None
    finally:
        signal.signal(signal.SIGALRM, before)
    assert side.take() is not None


def test_an_interrupt_while_a_call_is_waited_for_leaves_the_lead_and_the_channel_as_they_were(side: Side) -> None:
    side.link.interrupts.add("recv")
    with pytest.raises(KeyboardInterrupt):
        side.take()
    assert not side.channel.lead.turns
    side.send(build_frame(CALL, 7, 5, NIL))
    assert side.take() is not None


@pytest.mark.parametrize("number", [0, 5])
def test_a_call_with_a_number_that_is_in_use_or_none_ends_the_channel(side: Side, number: int) -> None:
    side.send(build_frame(CALL, 7, 5, NIL))
    assert side.take() is not None
    side.send(build_frame(CALL, 7, number, NIL))
    assert side.take() is None
    assert side.reason is not None
    assert "in use or none" in side.reason.message


def test_a_plain_answer_is_sent_once(side: Side) -> None:
    side.send(build_frame(CALL, 7, 5, NIL))
    call = side.take()
    assert call is not None
    side.channel.answered_at = 0.0
    side.channel.answer_plain(call, b"\x01")
    side.channel.answer_plain(call, b"\x02")
    assert side.channel.answered_at > 0
    assert call.is_answered
    assert side.sent() == [Frame(RESULT, 7, 5, b"\x01")]


def test_an_answer_to_who_is_gone_harms_nobody(side: Side) -> None:
    side.send(build_frame(CALL, 7, 5, NIL))
    call = side.take()
    assert call is not None
    side.far.close()
    side.channel.answer_plain(call, NIL)
    assert call.is_answered


def test_the_answer_to_a_call_that_was_counted_counts_it_no_more(side: Side) -> None:
    side.send(build_frame(CALL, 7, 5, b"\xc5\x08\x00" + bytes(2048)))
    assert side.take() is None
    side.channel.answer(side.calls[0], RESULT, NIL)
    assert side.channel.taken.size == 0
    assert side.sent() == [Frame(RESULT, 7, 5, NIL)]


@pytest.fixture
def two() -> Iterator[Side]:
    """A channel that reads one socket and writes to another."""
    made = Side(is_two=True)
    yield made
    made.close()


def test_a_channel_of_two_sockets_reads_one_and_writes_to_the_other(two: Side) -> None:
    two.send(build_frame(RESULT, 7, 1, b"\x01"))
    assert two.ask(Asker()) == b"\x01"
    assert two.sent() == [Frame(CALL, 7, 1, NIL)]
    two.send(build_frame(CALL, 7, 5, NIL))
    call = two.take()
    assert call is not None
    two.channel.answer_plain(call, b"\x02")
    assert two.sent() == [Frame(RESULT, 7, 5, b"\x02")]


def test_where_only_what_is_written_to_was_closed_what_came_is_read_before_the_end(two: Side) -> None:
    two.send(build_frame(EVENT, 7, 0, NIL))
    two.far_reads.close()
    with pytest.raises(Unsent):
        two.ask(Asker())
    while two.reason is None:
        two.channel.read()
    assert [each.kind for each in two.others] == [EVENT]
    assert isinstance(two.reason, Disconnected)


def test_where_only_what_is_read_was_closed_the_channel_has_ended(two: Side) -> None:
    two.far.close()
    asker = Asker()
    assert two.ask(asker) is None
    assert [type(each) for each in asker.told] == [Disconnected]
    with pytest.raises(BrokenPipeError):
        two.far_reads.send(b"more")
    assert two.far_reads.recv(65536) == build_frame(CALL, 7, 1, NIL)
    assert two.far_reads.recv(65536) == b""


def test_closing_a_channel_of_two_sockets_closes_both(two: Side) -> None:
    two.channel.close()
    assert (two.far.recv(1), two.far_reads.recv(1)) == (b"", b"")
