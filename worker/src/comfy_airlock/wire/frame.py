"""Frames: the 16-byte header and what follows it. Pure: bytes in, bytes out.

Owns the layout of PROTOCOL.md, "Frames". Twin of ``src/transport/frame.ts``; both read ``tests/vectors/frames.json``.
"""

from __future__ import annotations

from math import ceil
from struct import Struct
from typing import Final, NamedTuple

from comfy_airlock.wire.errors import LimitExceeded, ProtocolError
from comfy_airlock.wire.limits import FRAME_ATTACHMENTS_MAX, FRAME_BYTES_MAX

_HEADER: Final = Struct("<IBBHII")
_DEADLINE: Final = Struct("<I")
HEADER_BYTES: Final = 16

HELLO: Final = 1
WELCOME: Final = 2
CALL: Final = 3
RESULT: Final = 4
ERROR: Final = 5
CANCEL: Final = 6
PROGRESS: Final = 7
LINE: Final = 8
_KIND_MAX: Final = LINE

_FLAG_DEADLINE: Final = 1
_DEADLINE_MS_MAX: Final = 0xFFFF_FFFF


class Frame(NamedTuple):
    """One frame as it arrived."""

    kind: int
    peer: int
    """Who it came from."""
    call: int
    deadline_ms: int | None
    """Milliseconds that the call had left when it was sent."""
    body: bytes | memoryview
    """The msgpack body."""


def build_frame(kind: int, peer: int, call: int, body: bytes = b"", deadline_ms: float | None = None) -> bytes:
    """One frame without attachments, ready to be sent.

    Raises:
        LimitExceeded: it is larger than receivers take; one of them would end the connection over it.
    """
    # Rounded up, so that a deadline still to come never reads as one that has passed.
    left = b"" if deadline_ms is None else _DEADLINE.pack(ceil(min(_DEADLINE_MS_MAX, max(0, deadline_ms))))
    length = len(left) + len(body)
    if length > FRAME_BYTES_MAX:
        raise LimitExceeded(
            f"a message of {length} bytes is over the limit of {FRAME_BYTES_MAX} bytes",
            hint="send less at once, such as a smaller batch, or write it to a file and send its path",
        )
    flags = 0 if deadline_ms is None else _FLAG_DEADLINE
    return _HEADER.pack(length, kind, flags, 0, peer, call) + left + body


class FrameAssembler:
    """Cuts a byte stream into frames, however it is chopped up.

    The stream is read into the buffer that :meth:`writable` gives, and :meth:`advance` told how much. A frame larger
    than the buffer gets one of its own, so that its bytes are copied by the kernel alone.
    """

    _BUFFER_BYTES: Final = 64 * 1024

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray(self._BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._have = 0
        self._large: memoryview | None = None
        self._large_have = 0

    def writable(self) -> memoryview:
        """Where the next bytes belong. Never empty."""
        if self._large is not None:
            return self._large[self._large_have :]
        return self._view[self._have :]

    def advance(self, count: int) -> list[Frame]:
        """Takes ``count`` bytes that were written and returns the frames that they complete.

        Raises:
            ProtocolError, LimitExceeded: the stream is unusable afterwards.
        """
        if self._large is not None:
            self._large_have += count
            if self._large_have < len(self._large):
                return []
            whole, self._large = self._large, None
            return [_frame_of(_HEADER.unpack_from(whole, 0), whole[HEADER_BYTES:])]
        self._have += count
        return self._only_frame() or self._cut()

    def _only_frame(self) -> list[Frame]:
        """The one whole frame that was read, as where calls follow one another; otherwise nothing."""
        if self._have < HEADER_BYTES:
            return []
        header = _HEADER.unpack_from(self._buffer, 0)
        if HEADER_BYTES + header[0] != self._have:
            return []
        self._check(header)
        payload = bytes(self._view[HEADER_BYTES : self._have])
        self._have = 0
        return [_frame_of(header, payload)]

    def _cut(self) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        while self._have - at >= HEADER_BYTES:
            header = _HEADER.unpack_from(self._buffer, at)
            self._check(header)
            end = at + HEADER_BYTES + header[0]
            if end > self._have:
                break
            frames.append(_frame_of(header, bytes(self._view[at + HEADER_BYTES : end])))
            at = end
        self._keep(at)
        return frames

    def _keep(self, at: int) -> None:
        """Moves the unfinished rest to where the next bytes can follow it."""
        rest = self._have - at
        if rest >= HEADER_BYTES:
            total = HEADER_BYTES + int(_HEADER.unpack_from(self._buffer, at)[0])
            if total > self._BUFFER_BYTES:
                self._large = memoryview(bytearray(total))
                self._large[:rest] = self._view[at : self._have]
                self._large_have = rest
                rest = 0
        if rest and at:
            self._buffer[:rest] = self._buffer[at : self._have]
        self._have = rest

    def _check(self, header: tuple[int, ...]) -> None:
        length, kind, flags, attachments, _, _ = header
        if 0 < kind <= _KIND_MAX and not flags and not attachments and length <= self._frame_bytes_max:
            return
        if length > self._frame_bytes_max:
            raise LimitExceeded(f"a frame of {length} bytes is over the limit of {self._frame_bytes_max} bytes")
        if not 0 < kind <= _KIND_MAX:
            raise ProtocolError(f"unknown frame kind {kind}")
        if flags & ~_FLAG_DEADLINE:
            raise ProtocolError(f"unknown frame flags {flags:#x}")
        if flags and kind != CALL:
            raise ProtocolError("only a call may have a deadline")
        if attachments > FRAME_ATTACHMENTS_MAX:
            raise LimitExceeded(f"{attachments} attachments are over the limit of {FRAME_ATTACHMENTS_MAX}")
        if attachments:
            raise ProtocolError("attachments were not negotiated on this connection")
        if flags and length < _DEADLINE.size:
            raise ProtocolError(f"a frame of {length} bytes cannot hold its deadline")


def _frame_of(header: tuple[int, ...], payload: bytes | memoryview) -> Frame:
    _, kind, flags, _, peer, call = header
    if not flags & _FLAG_DEADLINE:
        return Frame(kind, peer, call, None, payload)
    (deadline_ms,) = _DEADLINE.unpack_from(payload, 0)
    return Frame(kind, peer, call, deadline_ms, payload[_DEADLINE.size :])
