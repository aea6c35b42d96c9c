"""A peer's connection to the server: frames out from any thread, frames in on whichever thread leads (``lead.py``).

Invariant: every call ends exactly once, with its answer, its error, or the reason why the connection ended. Whoever
reads hands frames on and does nothing else with them: a call's to its caller, all others to the owner. Bodies are
decoded by whom they are for, as the kind of tensor that a thread builds depends on the thread (torch's inference mode).
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, Protocol

from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.credentials import check_server
from comfy_airlock.wire.errors import AirlockError, Disconnected, ProtocolError
from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.frame import Frame, FrameAssembler, build_frame
from comfy_airlock.wire.lead import Lead

PROTOCOL_MIN = PROTOCOL_MAX = 1
SERVER_PEER = 0


class PendingCall(Protocol):
    """Somebody who waits for an answer. Called on the thread that reads, which must not be kept."""

    def progressed(self, body: bytes | memoryview, /) -> None: ...

    def answered(self, frame: Frame, /) -> None: ...

    def failed(self, error: AirlockError, /) -> None: ...


class Events(Protocol):
    """The owner of a connection. Called on the thread that reads, which must not be kept."""

    def received(self, frame: Frame, /) -> None:
        """A frame that answers nothing: a call, a cancel."""

    def ended(self, reason: AirlockError, /) -> None:
        """The connection ended. Comes once, and last."""


class Connection:
    """One stream socket to the server, after its hello was accepted."""

    def __init__(self, path: str, hello: dict[str, Any], codec: Codec) -> None:
        """Connects, says hello and waits for the welcome.

        Raises:
            Disconnected: nobody listens at ``path``.
            Unauthorized: who listens there is another user.
            AirlockError: what the server says where it lets nobody in.
        """
        self.codec = codec
        self._process = os.getpid()
        self._sending = threading.Lock()
        self._pending: dict[int, PendingCall] = {}
        self._last_call = 0
        self._reason: AirlockError | None = None
        self._state = threading.Lock()
        self._socket = _connect(path)
        self._assembler = FrameAssembler()
        self._counts: list[int] = []
        self._events: Events | None = None
        self.lead = Lead(self._read)
        try:
            first, *self._early = self._introduce(hello)
            self.welcome: dict[str, Any] = self._expect_welcome(first)
        except BaseException:
            self._socket.close()
            raise
        self._keeper: threading.Thread | None = None

    def _introduce(self, hello: dict[str, Any]) -> list[Frame]:
        full = {"protocol": {"min": PROTOCOL_MIN, "max": PROTOCOL_MAX}, "features": [], "pid": os.getpid(), **hello}
        try:
            self._socket.sendall(build_frame(frames.HELLO, SERVER_PEER, 0, self.codec.encode(full)))
        except OSError as error:
            # What the server said before it closed the connection can still be read.
            if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
                raise Disconnected(f"the connection to the server broke: {error}") from error
        while True:
            received = self._receive()
            self._counts.clear()
            if received:
                return received

    def _expect_welcome(self, frame: Frame) -> dict[str, Any]:
        body = self.codec.decode(frame.body)
        if frame.kind == frames.ERROR:
            raise AirlockError.from_wire(body)
        if frame.kind != frames.WELCOME or not isinstance(body, dict):
            raise ProtocolError("the server's first frame is neither a welcome nor an error")
        return body

    def start(self, events: Events, name: str) -> None:
        """Begins to hand out what arrives. Where no thread waits, a daemon thread of this name reads."""
        self._events = events
        try:
            self._hand_out(self._early)
        except AirlockError as error:
            self._end(error)
        self._keeper = threading.Thread(target=self.lead.keep, name=name, daemon=True)
        self._keeper.start()

    def _receive(self) -> list[Frame]:
        """Blocks for the next bytes and returns the frames that they complete."""
        try:
            # Received and noted by one call into C, as in _transmit: what is taken and not counted would be lost.
            self._counts.extend(map(self._socket.recv_into, (self._assembler.writable(),)))
        except OSError as error:
            raise Disconnected(f"the connection to the server broke: {error}") from error
        if self._counts[0] == 0:
            raise Disconnected("the server closed the connection")
        return self._assembler.advance(self._counts[0])

    def _read(self) -> None:
        """Reads once and hands out what came; ends the connection where that fails."""
        try:
            self._hand_out(self._receive())
        except AirlockError as error:
            self._end(error)
        except BaseException:
            # An interrupt (Ctrl-C) while nothing was taken from the stream harms nobody; later, frames may be lost.
            if self._counts:
                self._end(Disconnected("the connection ended: reading was interrupted in the middle of a message"))
            raise
        self._counts.clear()

    def _hand_out(self, received: list[Frame]) -> None:
        assert self._events is not None
        for frame in received:
            self._dispatch(frame, self._events)

    def _dispatch(self, frame: Frame, events: Events) -> None:
        if frame.kind == frames.ERROR and frame.call == 0:
            raise AirlockError.from_wire(self.codec.decode(frame.body))
        if frame.kind in (frames.RESULT, frames.ERROR):
            with self._state:
                call = self._pending.pop(frame.call, None)
            # An answer may cross the cancel of its call.
            if call is not None:
                call.answered(frame)
        elif frame.kind == frames.PROGRESS:
            call = self._pending.get(frame.call)
            if call is not None:
                call.progressed(frame.body)
        else:
            events.received(frame)

    def _end(self, reason: AirlockError) -> None:
        with self._state:
            is_first = self._reason is None
            if self._reason is None:
                self._reason = reason
            pending, self._pending = self._pending, {}
        self._shut()
        for call in pending.values():
            call.failed(self._reason.fresh())
        if is_first:
            self.lead.end()
            if self._events is not None:
                self._events.ended(self._reason)

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other side was faster.

    def send(self, frame: bytes) -> None:
        """Sends one frame. Blocks while the server takes nothing; what comes in meanwhile is read by whoever leads.

        What interrupts it (Ctrl-C, or what another signal's handler raises) passes through. Where a part of the frame
        is on its way by then, the connection ends: whatever came next would be taken for the rest of it.

        Raises:
            Disconnected: the connection has ended.
        """
        self.check_process()
        sent: list[int] = []
        with self._sending:
            try:
                self._transmit(memoryview(frame), sent)
            except ConnectionError as error:
                # Whoever reads may still find why, in what the server said before it closed the connection.
                raise self._broken(error) from error
            except BaseException as error:
                if 0 < sum(sent) < len(frame):
                    self._end(Disconnected("the connection ended: sending was interrupted in the middle of a message"))
                if isinstance(error, OSError):
                    raise self._broken(error) from error
                raise

    def _transmit(self, rest: memoryview, sent: list[int]) -> None:
        """Sends ``rest``, and notes in ``sent`` how much went each time."""
        # Sent and noted by one call into C: a signal's handler, which may raise, runs before or after it. Between
        # `count = send(…)`'s two halves it would make a half frame look as if nothing had been sent.
        try:
            sent.extend(map(self._socket.send, (rest,), (socket.MSG_DONTWAIT,)))
            rest = rest[sent[-1] :]
        except BlockingIOError:
            pass
        if rest:
            # Two sides that both send and don't read would wait for each other for ever.
            self.lead.call_keeper()
        while rest:
            sent.extend(map(self._socket.send, (rest,)))
            rest = rest[sent[-1] :]

    def _broken(self, error: OSError) -> AirlockError:
        reason = self._reason or Disconnected(f"the connection to the server broke: {error}")
        return reason.fresh()

    def check_process(self) -> None:
        """Raises Disconnected in a forked child: the connection is its parent's; two readers would tear it apart."""
        if os.getpid() != self._process:
            raise Disconnected(
                "this connection belongs to the process that was forked",
                hint="connect again in the child, or start it with the spawn method",
            )

    def call(self, pending: PendingCall, peer: int, body: bytes, deadline_ms: float | None = None) -> int:
        """Sends a call; its answer goes to ``pending``. Returns the call's number, for :meth:`cancel`."""
        # Before the lock, which another thread may have held when this process was forked.
        self.check_process()
        with self._state:
            if self._reason is not None:
                raise self._reason.fresh()
            number = self._free_number()
            self._pending[number] = pending
        try:
            self.send(build_frame(frames.CALL, peer, number, body, deadline_ms))
        except BaseException:
            with self._state:
                self._pending.pop(number, None)
            raise
        return number

    def _free_number(self) -> int:
        while True:
            self._last_call = self._last_call % 0xFFFF_FFFF + 1
            if self._last_call not in self._pending:
                return self._last_call

    def cancel(self, peer: int, number: int) -> None:
        """Gives up a call: nobody waits for its answer, and the callee is told."""
        with self._state:
            call = self._pending.pop(number, None)
        if call is not None:
            self.send(build_frame(frames.CANCEL, peer, number))

    def close(self) -> None:
        """Ends the connection; calls under way fail. Safe to call twice, and from any thread."""
        if os.getpid() != self._process:
            return
        self._end(Disconnected("the connection was closed"))
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        self._socket.close()


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    held_by_this_process.add(connection)
    try:
        _reach(connection, path)
        check_server(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _reach(connection: socket.socket, path: str) -> None:
    try:
        connection.connect(path)
    except OSError as error:
        raise Disconnected(
            f"no server answers at {path}: {error.strerror}", hint="start one with `airlock serve`"
        ) from error
