"""Feeds an assembler as a socket would."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_airlock.wire.frame import Frame, FrameAssembler


def feed(assembler: FrameAssembler, chunks: Iterable[bytes]) -> list[Frame]:
    """The frames that the chunks complete; a chunk that finds too little room is written in several goes."""
    frames: list[Frame] = []
    for chunk in chunks:
        rest = chunk
        while rest:
            room = assembler.target
            count = min(len(rest), len(room))
            assert count > 0, "an assembler always has room"
            room[:count], rest = rest[:count], rest[count:]
            frames += assembler.advance(count)
    return frames


def chop(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """``data`` in chunks of these sizes, and what is left in one more."""
    chunks: list[bytes] = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]
