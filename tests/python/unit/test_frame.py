"""The frame assembler: the same frames come out, however the stream is chopped up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.wire.errors import AirlockError, LimitExceeded, ProtocolError
from comfy_airlock.wire.frame import CALL, HEADER_BYTES, RESULT, FrameAssembler, build_frame
from feeding import chop, feed

BUFFER_BYTES = 64 * 1024

frames = st.lists(
    st.tuples(
        st.integers(1, 7), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=200),
        st.none() | st.integers(0, 2**32 - 1),
    ).map(lambda each: each if each[0] == CALL else (*each[:4], None)),
    max_size=8,
)  # fmt: skip


@given(frames, st.lists(st.integers(1, 60)))
def test_frames_survive_any_chopping(sent: list[tuple[int, int, int, bytes, int | None]], sizes: list[int]) -> None:
    stream = b"".join(build_frame(*each) for each in sent)
    received = feed(FrameAssembler(), chop(stream, sizes))
    assert [(each.kind, each.peer, each.call, bytes(each.body), each.deadline_ms) for each in received] == sent


def test_frame_fed_byte_by_byte_comes_out_with_its_last_byte() -> None:
    assembler = FrameAssembler()
    data = build_frame(CALL, 1, 2, b"body", 10)
    for at in range(len(data) - 1):
        assert feed(assembler, [data[at : at + 1]]) == []
    (frame,) = feed(assembler, [data[-1:]])
    assert (frame.body, frame.deadline_ms) == (b"body", 10)


def test_two_frames_in_one_read_come_out_together() -> None:
    first, second = feed(FrameAssembler(), [build_frame(RESULT, 0, 1, b"a") + build_frame(RESULT, 0, 2, b"b")])
    assert (first.body, second.body) == (b"a", b"b")


@pytest.mark.parametrize("extra", [-17, -16, -1, 0, 1, 100_000, 1_000_000])
@pytest.mark.parametrize("before", [b"", b"x" * 5000])
def test_frame_about_as_large_as_the_buffer_or_larger(extra: int, before: bytes) -> None:
    body = bytes(range(256)) * 5000
    body = body[: BUFFER_BYTES + extra]
    stream = build_frame(RESULT, 0, 1, before) + build_frame(RESULT, 0, 2, body) + build_frame(RESULT, 0, 3, b"after")
    for size in (999, BUFFER_BYTES, 1 << 22):
        received = feed(FrameAssembler(), [stream[at : at + size] for at in range(0, len(stream), size)])
        assert [bytes(each.body) for each in received] == [before, body, b"after"]


def test_large_call_with_a_deadline_keeps_its_body_apart() -> None:
    (frame,) = feed(FrameAssembler(), [build_frame(CALL, 0, 1, b"z" * 200_000, 77)])
    assert (frame.deadline_ms, bytes(frame.body)) == (77, b"z" * 200_000)


def test_frame_keeps_its_bytes_when_the_next_ones_arrive() -> None:
    assembler = FrameAssembler()
    (first,) = feed(assembler, [build_frame(RESULT, 0, 1, b"first")])
    feed(assembler, [build_frame(RESULT, 0, 2, b"other")])
    assert first.body == b"first"


@given(st.binary(min_size=HEADER_BYTES, max_size=64))
def test_garbage_is_refused_or_waits_for_more_but_never_does_anything_else(data: bytes) -> None:
    try:
        feed(FrameAssembler(1 << 16), [data])
    except (ProtocolError, LimitExceeded):
        pass


def test_frame_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    feed(FrameAssembler(10), [build_frame(RESULT, 0, 1, b"x" * 10)])
    with pytest.raises(AirlockError) as caught:
        feed(FrameAssembler(10), [build_frame(RESULT, 0, 1, b"x" * 11)[:HEADER_BYTES]])
    assert caught.value.code == "limit_exceeded"
