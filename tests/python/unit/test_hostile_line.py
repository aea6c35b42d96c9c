"""A peer at the other end of a line that keeps to no rule: it is shown out with the reason, and that is all."""

from __future__ import annotations

import itertools
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.calls.pair import Pair
from comfy_airlock.calls.references import References
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, Disconnected, LimitExceeded, ProtocolError
from comfy_airlock.wire.frame import Body, Cargo, Frame, FrameAssembler, build_frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.recipients import PendingCall, fail_all
from comfy_airlock.wire.reference import Reference
from comfy_airlock.wire.sending import Sender
from interrupting import Interrupt

SECONDS_MAX = 20
CODEC = Codec()


class Side:
    """A pair over one end of a line, whose calls are carried out where they are read; the other end is the test's."""

    def __init__(self) -> None:
        near, self.hostile = socket.socketpair()
        self.hostile.settimeout(SECONDS_MAX)
        self.reason: AirlockError | None = None
        self.has_ended = threading.Event()
        self.channel = Channel([near], CODEC, "the worker")
        route = (self.channel, 1)
        self.pair = Pair(lambda: route, route, reveals=False, methods={"add": lambda a, b: a + b})
        self.pair.goes_by(route)
        self.channel.attach(self, [])
        self.channel.keep("airlock-test-keeper")

    def called(self, call: IncomingCall) -> None:
        self.pair.service.run(call)

    def laden(self, frame: Frame) -> Body:
        return self.pair.references.undecoded.hold(frame.body)

    def gave_up(self) -> None: ...

    def received(self, frame: Frame) -> None:
        self.pair.received(frame, lambda action: action())

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        self.reason = reason
        fail_all(unanswered, reason)
        # As the owners of lines do.
        self.channel.close()
        self.has_ended.set()

    def read(self) -> Frame:
        """The next frame that this side sent."""
        assembler = FrameAssembler()
        while True:
            count = self.hostile.recv_into(assembler.target, 16)
            assert count, "the line has ended"
            for frame in assembler.advance(count):
                return frame
            length = frames.unpack_header(assembler.buffer)[0]
            while length:
                count = self.hostile.recv_into(assembler.target, length)
                length -= count
                for frame in assembler.advance(count):
                    return frame

    def close(self) -> None:
        self.channel.close()
        self.hostile.close()


@pytest.fixture
def side() -> Iterator[Side]:
    made = Side()
    yield made
    made.close()


def call(number: int, method: str, *args: Any, **options: Any) -> bytes:
    return build_frame(frames.CALL, 1, number, CODEC.encode([method, list(args), {}]), **options)


def shown_out(side: Side, code: str, words: str) -> None:
    """The side has told why, and closed the line."""
    frame = side.read()
    assert (frame.kind, frame.call) == (frames.ERROR, 0)
    body = CODEC.decode(frame.body)
    assert body["code"] == code
    assert words in body["message"]
    assert side.hostile.recv(1) == b""
    assert side.has_ended.wait(SECONDS_MAX)
    assert side.reason is not None
    assert side.reason.code == code


def test_honest_call_is_answered_though_it_comes_byte_by_byte(side: Side) -> None:
    for byte in call(1, "add", 2, 3):
        side.hostile.send(bytes([byte]))
        time.sleep(0.001)
    answer = side.read()
    assert (answer.kind, CODEC.decode(answer.body)) == (frames.RESULT, 5)


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "limit_exceeded", "bytes is over the limit"),
        (b"\0" * 16, "protocol_error", "kind 0"),
        (build_frame(frames.CALL, 1, 1)[:4] + b"\x1f" + bytes(11), "protocol_error", "kind 31"),
        ((0xFFFFFFFF).to_bytes(4, "little") + bytes([frames.CALL]) + bytes(11), "limit_exceeded", "4294967295"),
        (call(0, "add", 1, 2), "protocol_error", "number 0"),
        (call(7, "wait") + call(7, "wait"), "protocol_error", "number 7, which is in use"),
    ],
    ids=["text", "zeros", "unknown kind", "oversized", "call 0", "repeated number"],
)
def test_breach_of_the_protocol_is_answered_with_the_reason_and_ends_the_line(
    side: Side, sent: bytes, code: str, words: str
) -> None:
    held: list[IncomingCall] = []
    side.channel._called = held.append
    side.hostile.sendall(sent)
    shown_out(side, code, words)


def test_call_under_way_fails_with_the_breach(side: Side) -> None:
    def breach() -> None:
        side.read()
        side.hostile.sendall(b"\0" * 16)

    thread = threading.Thread(target=breach)
    thread.start()
    with pytest.raises(ProtocolError, match="kind 0"):
        side.pair.call("anything", (), {})
    thread.join(SECONDS_MAX)


@pytest.mark.parametrize(
    "frame",
    [
        build_frame(frames.RESULT, 1, 99, b"\xc0"),
        build_frame(frames.ERROR, 1, 99, b"\xc0"),
        build_frame(frames.PROGRESS, 1, 99, b"\xc0"),
        build_frame(frames.CANCEL, 1, 99),
        build_frame(frames.RESULT, 1, 99, b"\xc1", cargo=Cargo(has_references=True)),
        build_frame(frames.EVENT, 1, 0, b"\xc1"),
        build_frame(frames.EVENT, 1, 0, CODEC.encode(["nobody's", 1])),
        build_frame(frames.EVENT, 1, 0, CODEC.encode(5)),
        build_frame(frames.RELEASE, 1, 0, CODEC.encode([1, 2, 3, 4])),
        build_frame(frames.RELEASE, 1, 0, CODEC.encode({"a": 1})),
        build_frame(frames.CREDIT, 1, 5),
        build_frame(frames.HELLO, 1, 0),
    ],
    ids=lambda frame: f"kind {frame[4]} {bytes(frame[16:]).hex()}",
)
def test_what_means_nothing_here_is_dropped(side: Side, frame: bytes) -> None:
    side.hostile.sendall(frame + call(1, "add", 2, 3))
    assert CODEC.decode(side.read().body) == 5


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (call(1, "nothing"), "bad_request"),
        (call(1, "ref_call", 12345), "reference_gone"),
        (call(1, "ref_get", "one", "name"), "bad_request"),
        (build_frame(frames.CALL, 1, 1, b"\xc1"), "value_invalid"),
        (build_frame(frames.CALL, 1, 1, b"\x91" * 3000 + b"\xc0"), "value_invalid"),
        (build_frame(frames.CALL, 1, 1, b"\xc7\x05\x07" + CODEC.encode([1, 2, 3, 4])), "value_invalid"),
        (build_frame(frames.CALL, 1, 1, b"\x93\xa1f\x91\xd6\x07\x92\x01\xcd\xff\x80"), "value_invalid"),
        (call(1, "add", 1, 2, parent=77), "cancelled"),
    ],
    ids=["no method", "no reference", "no number", "no value", "nesting bomb", "bad reference", "cut off", "no parent"],
)
def test_call_that_makes_no_sense_fails_alone(side: Side, frame: bytes, code: str) -> None:
    side.hostile.sendall(frame)
    answer = side.read()
    assert (answer.kind, answer.call) == (frames.ERROR, 1)
    assert CODEC.decode(answer.body)["code"] == code
    side.hostile.sendall(call(2, "add", 2, 3))
    assert CODEC.decode(side.read().body) == 5


def test_truncated_frame_is_the_end_and_no_more(side: Side) -> None:
    side.hostile.sendall(call(1, "add", 2, 3)[:-1])
    side.hostile.close()
    assert side.has_ended.wait(SECONDS_MAX)
    assert isinstance(side.reason, Disconnected)


def test_flood_of_calls_that_are_not_answered_ends_the_line(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_airlock.wire.under_way.CALLS_MAX", 100)
    held: list[IncomingCall] = []
    side.channel._called = held.append
    side.hostile.sendall(b"".join(call(number, "wait") for number in range(1, 102)))
    shown_out(side, "limit_exceeded", "100 calls under way")
    assert len(held) == 100
    assert side.channel.taken.size == sum(each.size for each in held)
    assert all(each.is_cancelled for each in held)


def test_queued_call_that_is_cancelled_is_answered_by_another_thread_than_reads(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    senders: list[str] = []
    send = Sender.send

    def noted(sender: Sender, *args: Any) -> None:
        senders.append(threading.current_thread().name)
        send(sender, *args)

    monkeypatch.setattr(Sender, "send", noted)
    held: list[IncomingCall] = []
    side.channel._called = held.append
    numbers = range(1, 20)
    side.hostile.sendall(b"".join(call(number, "wait") + build_frame(frames.CANCEL, 1, number) for number in numbers))
    answers = [side.read() for _ in numbers]
    assert [each.call for each in answers] == list(numbers)
    assert {CODEC.decode(each.body)["code"] for each in answers} == {"cancelled"}
    # The one that reads would wait for the other side to read, and read nothing meanwhile.
    assert set(senders) == {"airlock-aside"}


def test_references_of_a_call_that_is_cancelled_before_its_turn_are_given_back(side: Side) -> None:
    held: list[IncomingCall] = []
    side.channel._called = held.append
    theirs = References(side.pair, reveals=True)
    body = Codec(references=theirs).encode(["wait", [call], {}])
    (number,) = theirs.settle() or [0]
    sent = [build_frame(frames.CALL, 1, each, body, cargo=Cargo(has_references=True)) for each in (1, 2)]
    side.hostile.sendall(sent[0] + build_frame(frames.CANCEL, 1, 1))
    answers = [side.read(), side.read()]
    assert sorted(each.kind for each in answers) == [frames.ERROR, frames.RELEASE]
    assert [CODEC.decode(each.body) for each in answers if each.kind == frames.RELEASE] == [[number, 1]]
    # As one that finds so itself when its turn comes.
    side.hostile.sendall(sent[1] + build_frame(frames.CALL, 1, 3, b"\xc0"))
    until = time.monotonic() + SECONDS_MAX
    while len(held) < 3:
        assert time.monotonic() < until
        time.sleep(0.001)
    held[1].cancel()
    side.pair.service.run(held[1])
    assert sorted(side.read().kind for _ in range(2)) == [frames.ERROR, frames.RELEASE]


def test_references_of_a_call_that_cannot_be_decoded_are_given_back_once(side: Side) -> None:
    class WithOneThatIsGone(References):
        def describe(self, value: Any) -> Reference | None:
            return Reference(12345) if value is side else super().describe(value)

    theirs = WithOneThatIsGone(side.pair, reveals=True)
    body = Codec(references=theirs).encode(["add", [call, side], {}])
    (number,) = theirs.settle() or [0]
    side.hostile.sendall(build_frame(frames.CALL, 1, 1, body, cargo=Cargo(has_references=True)))
    answer, release = side.read(), side.read()
    assert (answer.kind, CODEC.decode(answer.body)["code"]) == (frames.ERROR, "reference_gone")
    assert (release.kind, CODEC.decode(release.body)) == (frames.RELEASE, [number, 1])


def test_flood_of_bytes_ends_the_line(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_airlock.wire.under_way.INCOMING_BYTES_MAX", 10_000)
    held: list[IncomingCall] = []
    side.channel._called = held.append
    side.hostile.sendall(b"".join(call(number, "wait", bytes(6000)) for number in range(1, 4)))
    shown_out(side, "limit_exceeded", "2 calls under way here, of 12")
    assert len(held) == 2


def test_what_would_only_be_queued_is_left_to_the_kernel(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_airlock.wire.under_way.INCOMING_BYTES_READ_ON", 100_000)
    held: list[IncomingCall] = []
    side.channel._called = held.append
    side.hostile.settimeout(0.3)
    with pytest.raises(TimeoutError):
        for number in range(1, 1000):
            side.hostile.sendall(call(number, "wait", bytes(20_000)))
    side.hostile.settimeout(SECONDS_MAX)
    # What one read brought beyond the bound, and no more.
    assert side.channel.taken.size < 100_000 + 64 * 1024
    # Worked off, it is read on.
    before = held.copy()
    for each in before:
        side.pair.service.fail(each, ValueError())
    until = time.monotonic() + SECONDS_MAX
    while len(held) == len(before):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_flood_of_events_without_a_body_is_dropped_too(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_airlock.calls.event_handlers.EVENT_BYTES_MAX", 1000)
    waiting: list[object] = []
    for _ in range(1000):
        side.pair.received(Frame(frames.EVENT, 1, 0, b""), waiting.append)
    assert len(waiting) <= 1000 // frames.HEADER_BYTES + 1


def test_peer_that_never_reads_blocks_whoever_sends_to_it_and_nobody_else() -> None:
    stuck, well = Side(), Side()
    try:
        sender = threading.Thread(target=lambda: _fails(stuck, bytes(8 << 20)))
        sender.start()
        well.hostile.sendall(call(1, "add", 2, 3))
        assert CODEC.decode(well.read().body) == 5
        # What comes from it is still read meanwhile.
        stuck.hostile.sendall(build_frame(frames.EVENT, 1, 0, CODEC.encode(["name", 1])))
        stuck.channel.close()
        sender.join(SECONDS_MAX)
        assert not sender.is_alive()
    finally:
        stuck.close()
        well.close()


def test_send_that_is_interrupted_in_the_middle_ends_the_line_and_hangs_nobody(side: Side) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupt):
            side.pair.call("take", (bytes(8 << 20),), {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert side.has_ended.wait(SECONDS_MAX)
    with pytest.raises(Disconnected, match="interrupted in the middle"):
        side.pair.call("take", (1,), {})


def _fails(side: Side, data: bytes) -> None:
    with pytest.raises(Disconnected):
        side.pair.call("take", (data,), {})


def test_numbers_wrap_past_those_in_use(side: Side) -> None:
    side.channel.made.numbers = itertools.count(0xFFFF_FFFF)
    side.pair.goes_by((side.channel, 1))
    side.channel.made._given_up[1] = 0.0
    numbers: list[int] = []

    def answer() -> None:
        for _ in range(3):
            asked = side.read()
            numbers.append(asked.call)
            side.hostile.sendall(build_frame(frames.RESULT, 1, asked.call, CODEC.encode(asked.call)))

    thread = threading.Thread(target=answer)
    thread.start()
    assert [side.pair.call("any", (), {}) for _ in range(3)] == [0xFFFF_FFFF, 2, 3]
    thread.join(SECONDS_MAX)
    assert numbers == [0xFFFF_FFFF, 2, 3]


@given(st.binary(max_size=400), st.integers(0, 2**32))
def test_whatever_is_sent_ends_the_line_or_leaves_it_as_it_was(data: bytes, seed: int) -> None:
    side = Side()
    chance = random.Random(seed)
    try:
        # A length that is no larger than what follows, as else all of it would be one frame that never ends.
        framed = (
            len(data).to_bytes(4, "little") + bytes([chance.randrange(14), chance.randrange(10)]) + bytes(10) + data
        )
        side.hostile.sendall(framed + call(1, "add", 2, 3))
        while (frame := _read_or_none(side)) is not None and (frame.kind, frame.call) != (frames.RESULT, 1):
            assert frame.kind == frames.ERROR
        if frame is None:
            assert side.has_ended.wait(SECONDS_MAX)
            assert isinstance(side.reason, (ProtocolError, LimitExceeded, AirlockError))
        else:
            assert CODEC.decode(frame.body) == 5
    finally:
        side.close()


def _read_or_none(side: Side) -> Frame | None:
    try:
        return side.read()
    except (AssertionError, ConnectionError):
        return None
