"""Which of its channels a worker waits for: the one that calls come over alone, and not at the cost of the others."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_airlock.runtime.streams import Streams
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.frame import CALL, build_frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Seat


class End:
    """A channel among those of the streams, the socket at its other end, and the numbers of the calls that came."""

    def __init__(self, streams: Streams, *, is_direct: bool) -> None:
        near, self.far = socket.socketpair()
        self.came: list[int] = []
        self.channel = Channel([near], Codec(), "the other side", streams, is_direct=is_direct)
        self.channel.attach(self, [])
        streams.add(self.channel)

    def call(self, number: int) -> None:
        self.far.send(build_frame(CALL, 1, number, b"\xc0"))

    def called(self, call: IncomingCall) -> None:
        self.came.append(call.number)

    def laden(self, frame: Any) -> Any:
        raise AssertionError

    def gave_up(self) -> None: ...

    def received(self, frame: Any) -> None:
        raise AssertionError

    def ended(self, reason: Any, unanswered: Any) -> None: ...

    def close(self) -> None:
        self.channel.close()
        self.far.close()


class Both:
    """A worker's connection and line, and a count of how often they were read."""

    def __init__(self) -> None:
        self.streams = Streams()
        self.connection = End(self.streams, is_direct=False)
        self.line = End(self.streams, is_direct=True)
        self.reads = 0

    def wait_alone(self) -> None:
        """As after a call that has come over the line, for longer than a test takes."""
        self.streams._alone_until = time.monotonic() + 60

    def read(self) -> None:
        self.reads += 1
        self.streams._read()

    def take(self) -> IncomingCall | None:
        """As who runs calls, one after the other."""
        return self.streams.take(Seat(), [threading.get_ident()])


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.line.close()
    made.connection.close()
    made.streams.close()


def test_what_comes_over_either_is_handed_to_its_owner(both: Both) -> None:
    both.connection.call(5)
    both.line.call(7)
    both.read()
    assert (both.connection.came, both.line.came) == ([5], [7])


def test_while_one_call_follows_another_over_the_line_the_connection_is_read_too(both: Both) -> None:
    both.line.call(1)
    both.read()
    both.connection.call(1)
    while not both.connection.came:
        both.line.call(both.reads + 1)
        both.read()
        assert both.line.came == list(range(1, both.reads + 1))
        assert both.reads < 1_000_000


def test_a_line_that_falls_silent_is_waited_for_for_a_moment_and_then_all_are(both: Both) -> None:
    both.line.call(1)
    both.read()
    both.reads = 0
    both.wait_alone()
    both.connection.call(2)
    while not both.connection.came:
        both.read()
    assert both.reads == 2
    both.line.call(3)
    both.read()
    assert both.line.came == [1, 3]


def test_a_line_that_is_gone_is_waited_for_no_more(both: Both) -> None:
    both.line.call(1)
    both.read()
    both.streams.remove(both.line.channel)
    both.connection.call(2)
    both.read()
    assert both.connection.came == [2]


def test_the_end_of_a_line_that_is_waited_for_alone_is_found(both: Both) -> None:
    both.line.call(1)
    both.read()
    both.wait_alone()
    both.line.far.close()
    both.read()
    assert both.line.channel.has_ended


def test_where_an_event_loop_watches_no_channel_is_waited_for_alone(both: Both) -> None:
    both.line.call(1)
    both.read()
    both.streams.fileno()
    both.wait_alone()
    both.connection.call(2)
    both.read()
    assert both.connection.came == [2]


def express(both: Both) -> bool:
    """Whether the line alone is read, and what comes over it is taken at once."""
    return both.streams.take is both.line.channel.take


def test_where_one_call_follows_another_over_the_line_each_is_taken_as_it_comes(both: Both) -> None:
    be_express(both)
    came = len(both.line.came)
    both.line.call(1)
    call = both.take()
    assert call is not None and call.number == 1
    assert len(both.line.came) == came, "it was handed to the owner, too"


def calls_follow_one_another(both: Both) -> None:
    # The first is read with all others, the second as all others were looked at, the third alone.
    for number in (1001, 1002, 1003):
        both.line.call(number)
        assert both.take() is None
        both.line.channel.answer_plain(both.line.channel.taken.unanswered[number], b"\xc0")


def be_express(both: Both) -> None:
    calls_follow_one_another(both)
    assert express(both)


def test_the_keeper_sees_to_it_that_the_others_are_read(both: Both) -> None:
    be_express(both)
    both.connection.call(4)
    both.line.call(5)
    # As the lead's keeper does, which looks as often as others are to be read.
    both.streams.lead._look_around()
    assert not express(both)
    assert both.take() is None
    assert both.connection.came == [4]


def test_silence_on_the_line_ends_its_being_read_alone(both: Both) -> None:
    be_express(both)
    both.connection.call(4)
    assert both.take() is None
    assert not express(both)
    both.take()
    assert both.connection.came == [4]


@pytest.mark.parametrize("end", ["removed", "watched", "joined by another"])
def test_what_changes_the_channels_ends_a_lines_being_read_alone(both: Both, end: str) -> None:
    be_express(both)
    if end == "removed":
        both.streams.remove(both.line.channel)
    elif end == "watched":
        both.streams.fileno()
    else:
        other = End(both.streams, is_direct=True)
        other.call(4)
        assert both.take() is None
        assert other.came == [4]
        other.close()
    assert not express(both)


@pytest.fixture
def timer() -> Iterator[None]:
    """Signals that come more often than a wait for the line alone ends."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("timer")
def test_where_a_timer_interrupts_all_waits_no_line_is_read_alone_for_who_runs_calls(both: Both) -> None:
    calls_follow_one_another(both)
    assert not express(both)


@pytest.mark.usefixtures("timer")
def test_where_a_timer_interrupts_all_waits_no_channel_is_waited_for_alone(both: Both) -> None:
    both.line.call(1)
    both.read()
    both.wait_alone()
    both.connection.call(2)
    both.read()
    assert both.connection.came == [2]


def test_a_line_that_has_ended_is_not_waited_for_alone(both: Both) -> None:
    both.line.call(1)
    both.read()
    both.line.channel.close()
    both.streams._busy = both.line.channel
    both.connection.call(2)
    both.read()
    assert both.connection.came == [2]


def test_an_error_of_whoever_is_handed_a_call_is_not_taken_for_silence(both: Both) -> None:
    def fail(call: IncomingCall) -> None:
        raise BlockingIOError(f"no room for {call.number}")

    both.line.channel._called = fail
    both.line.call(1)
    both.read()
    assert both.line.channel.has_ended


def test_a_timeout_that_a_pack_sets_for_all_sockets_is_none_of_a_channels() -> None:
    near, far = socket.socketpair()
    with far:
        near.settimeout(0.001)
        Channel([near], Codec(), "the other side")
        assert near.gettimeout() is None
        near.close()
