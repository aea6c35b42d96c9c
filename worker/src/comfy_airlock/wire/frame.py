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
_PREFIX: Final = Struct("<I")
ATTACHMENT: Final = Struct("<IIII")
"""A block that a frame names: segment, first page, pages, generation."""
HEADER_BYTES: Final = 16

_PLAIN_HEADER: Final = Struct("<IIII")
pack_plain_header: Final = _PLAIN_HEADER.pack
"""A header's bytes, of length, kind, peer and call, where there are no flags and attachments."""
unpack_plain_header: Final = _PLAIN_HEADER.unpack_from
"""Those four, of a buffer's first bytes; flags and attachments, where there are any, make the kind one that is none."""

pack_header: Final = _HEADER.pack
"""A header's bytes, of length, kind, flags, attachments, peer and call."""
unpack_header: Final = _HEADER.unpack_from
"""Those six, of a buffer's first bytes."""

HELLO: Final = 1
WELCOME: Final = 2
CALL: Final = 3
RESULT: Final = 4
ERROR: Final = 5
CANCEL: Final = 6
PROGRESS: Final = 7
LINE: Final = 8
EVENT: Final = 9
RELEASE: Final = 10
CREDIT: Final = 11
RETURN: Final = 12
RECLAIM: Final = 13
_KIND_MAX: Final = RECLAIM

_FLAG_DEADLINE: Final = 1
_FLAG_PARENT: Final = 2
_FLAG_REFERENCES: Final = 4
_FLAG_ARRAYS: Final = 8
_CALL_FLAGS: Final = _FLAG_DEADLINE | _FLAG_PARENT
_VALUE_FLAGS: Final = _FLAG_REFERENCES | _FLAG_ARRAYS
_KNOWN_FLAGS: Final = _CALL_FLAGS | _VALUE_FLAGS
_KINDS_WITH_VALUES: Final = frozenset({CALL, RESULT, ERROR, PROGRESS, EVENT})
_KINDS_WITH_ATTACHMENTS: Final = frozenset({CALL, RESULT, PROGRESS, EVENT, RETURN})
_KINDS_WITHOUT_BODY: Final = frozenset({RETURN, RECLAIM})
_DEADLINE_MS_MAX: Final = 0xFFFF_FFFF


Body = bytes | bytearray | memoryview


class Cargo(NamedTuple):
    """What a frame carries besides plain values."""

    has_references: bool = False
    """Whether the body holds references."""
    has_arrays: bool = False
    """Whether the body is a table of arrays and the value that they are of."""
    attachments: bytes = b""
    """The blocks that it names, 16 bytes each."""
    returns: bytes = b""
    """Leases that are returned before it, as a frame of their own in the same piece; on a line."""


class Frame(NamedTuple):
    """One frame as it arrived."""

    kind: int
    peer: int
    """Who it came from."""
    call: int
    body: Body
    """The msgpack body."""
    deadline_ms: int | None = None
    """Milliseconds that the call had left when it was sent."""
    parent: int | None = None
    """The receiver's own call that this one is made for, by the receiver's number."""
    has_references: bool = False
    has_arrays: bool = False
    attachments: bytes = b""
    """These three as :class:`Cargo` has them."""


def build_frame(
    kind: int,
    peer: int,
    call: int,
    body: bytes = b"",
    deadline_ms: float | None = None,
    parent: int | None = None,
    cargo: Cargo | None = None,
) -> bytes:
    """One frame, ready to be sent.

    Raises:
        LimitExceeded: it is larger than receivers take; one of them would end the connection over it.
    """
    if deadline_ms is None and parent is None and cargo is None and len(body) <= FRAME_BYTES_MAX:
        return pack_plain_header(len(body), kind, peer, call) + body
    flags, attachments, prefix = 0, 0, b""
    if cargo is not None:
        flags = _FLAG_REFERENCES * cargo.has_references | _FLAG_ARRAYS * cargo.has_arrays
        prefix = cargo.attachments
        attachments = len(prefix) // ATTACHMENT.size
        if attachments > FRAME_ATTACHMENTS_MAX:
            raise LimitExceeded(
                f"a message of {attachments} blocks of memory is over the limit of {FRAME_ATTACHMENTS_MAX}",
                hint="send fewer tensors at once",
            )
    if deadline_ms is not None:
        flags |= _FLAG_DEADLINE
        # Rounded up, so that a deadline still to come never reads as one that has passed.
        prefix += _PREFIX.pack(ceil(min(_DEADLINE_MS_MAX, max(0, deadline_ms))))
    if parent is not None:
        flags |= _FLAG_PARENT
        prefix += _PREFIX.pack(parent)
    length = len(prefix) + len(body)
    if length > FRAME_BYTES_MAX:
        raise LimitExceeded(
            f"a message of {length} bytes is over the limit of {FRAME_BYTES_MAX} bytes",
            hint="send less at once, such as a smaller batch, or write it to a file and send its path",
        )
    frame = pack_header(length, kind, flags, attachments, peer, call) + prefix + body
    if cargo is not None and cargo.returns:
        returns = cargo.returns
        return pack_header(len(returns), RETURN, 0, len(returns) // ATTACHMENT.size, peer, 0) + returns + frame
    return frame


class FrameAssembler:
    """Cuts a byte stream into frames, however it is chopped up.

    The stream is read into ``target``, and :meth:`advance` told how much. A frame larger than the buffer gets one of
    its own, so that its bytes are copied by the kernel alone.

    Attributes:
        target: where the next bytes belong. Never empty.
        buffer: where they lie once read, while ``has_part`` is false.
        has_part: whether a frame is held back of which more is to come.
    """

    _BUFFER_BYTES: Final = 64 * 1024

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self.buffer = bytearray(self._BUFFER_BYTES)
        self._view = memoryview(self.buffer)
        self._have = 0
        self._large: memoryview | None = None
        self._large_have = 0
        self.target = self._view
        self.has_part = False

    def advance(self, count: int) -> list[Frame]:
        """Takes ``count`` bytes that were written and returns the frames that they complete.

        Raises:
            ProtocolError, LimitExceeded: the stream is unusable afterwards.
        """
        frames = self._advance(count)
        self.target = self._view[self._have :] if self._large is None else self._large[self._large_have :]
        self.has_part = self._have > 0 or self._large is not None
        return frames

    def _advance(self, count: int) -> list[Frame]:
        if self._large is None:
            self._have += count
            return self._cut()
        self._large_have += count
        if self._large_have < len(self._large):
            return []
        whole, self._large = self._large, None
        return [_frame_of(unpack_header(whole, 0), whole[HEADER_BYTES:])]

    def _cut(self) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        while self._have - at >= HEADER_BYTES:
            header = unpack_header(self.buffer, at)
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
            total = HEADER_BYTES + int(unpack_header(self.buffer, at)[0])
            if total > self._BUFFER_BYTES:
                self._large = memoryview(bytearray(total))
                self._large[:rest] = self._view[at : self._have]
                self._large_have = rest
                rest = 0
        if rest and at:
            self.buffer[:rest] = self.buffer[at : self._have]
        self._have = rest

    def _check(self, header: tuple[int, ...]) -> None:
        length, kind, flags, attachments, _, _ = header
        if length > self._frame_bytes_max:
            raise LimitExceeded(f"a frame of {length} bytes is over the limit of {self._frame_bytes_max} bytes")
        if not 0 < kind <= _KIND_MAX:
            raise ProtocolError(f"unknown frame kind {kind}")
        if attachments > FRAME_ATTACHMENTS_MAX:
            raise LimitExceeded(f"{attachments} attachments are over the limit of {FRAME_ATTACHMENTS_MAX}")
        if flags or attachments or kind in _KINDS_WITHOUT_BODY:
            _check_contents(length, kind, flags, attachments)


def _check_contents(length: int, kind: int, flags: int, attachments: int) -> None:
    if flags & ~_KNOWN_FLAGS:
        raise ProtocolError(f"unknown frame flags {flags:#x}")
    if flags & _CALL_FLAGS and kind != CALL:
        raise ProtocolError("only a call may have a deadline or a parent")
    if flags & _VALUE_FLAGS and kind not in _KINDS_WITH_VALUES:
        raise ProtocolError(f"a frame of kind {kind} holds no references or arrays")
    if attachments and kind not in _KINDS_WITH_ATTACHMENTS:
        raise ProtocolError(f"a frame of kind {kind} has no attachments")
    needed = _PREFIX.size * (flags & _CALL_FLAGS).bit_count() + ATTACHMENT.size * attachments
    if kind in _KINDS_WITHOUT_BODY and length > needed:
        raise ProtocolError(f"a frame of kind {kind} has no body")
    if length < needed:
        raise ProtocolError(f"a frame of {length} bytes cannot hold the {needed} that its header promises")


def _frame_of(header: tuple[int, ...], payload: bytes | memoryview) -> Frame:
    _, kind, flags, count, peer, call = header
    if not (flags or count):
        return Frame(kind, peer, call, payload)
    at, deadline_ms, parent = count * ATTACHMENT.size, None, None
    attachments = bytes(payload[:at])
    if flags & _FLAG_DEADLINE:
        (deadline_ms,) = _PREFIX.unpack_from(payload, at)
        at += _PREFIX.size
    if flags & _FLAG_PARENT:
        (parent,) = _PREFIX.unpack_from(payload, at)
        at += _PREFIX.size
    refers, has_arrays = bool(flags & _FLAG_REFERENCES), bool(flags & _FLAG_ARRAYS)
    return Frame(kind, peer, call, payload[at:], deadline_ms, parent, refers, has_arrays, attachments)
