"""A stream of frames to one other side: calls and their answers, sent from any thread and read by whoever leads.

Invariant: every call ends exactly once, with its answer, its error, or whatever the owner makes of the channel's end.
Whoever reads hands frames on and does nothing else with them: a call's to its caller, all others to the owner. Bodies
are decoded by whom they are for: the kind of tensor that a thread builds depends on the thread (inference mode).
"""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import Protocol

from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, Disconnected
from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.frame import Frame, FrameAssembler, build_frame
from comfy_airlock.wire.lead import Lead


class PendingCall(Protocol):
    """Somebody who waits for an answer. Called on the thread that reads, which must not be kept."""

    def progressed(self, body: bytes | memoryview, /) -> None: ...

    def answered(self, frame: Frame, /) -> None: ...

    def failed(self, error: AirlockError, /) -> None: ...


class Owner(Protocol):
    """Whose channel it is. Called on the thread that reads, which must not be kept."""

    def received(self, frame: Frame, /) -> None:
        """A frame that answers nothing: a call, a cancel, news of the server's."""

    def ended(self, reason: AirlockError, unanswered: list[PendingCall], /) -> None:
        """The channel ended. Comes once, and last; the calls are the owner's to fail."""


class Unsent(Disconnected):
    """The channel had ended before anything of a message was sent: the message may go another way."""


def fail_all(unanswered: list[PendingCall], reason: AirlockError) -> None:
    """Fails calls that no answer will come to."""
    for call in unanswered:
        call.failed(reason.fresh())


class Channel:
    """One stream socket that frames go over."""

    def __init__(self, link: socket.socket, codec: Codec, far_side: str, lead: Lead | None = None) -> None:
        """
        Args:
            link: connected; the channel's to close.
            far_side: what it leads to, for errors: "the server".
            lead: who reads it, where that is several streams in one; by default this channel's own.
        """
        held_by_this_process.add(link)
        self.codec = codec
        self.lead = lead or Lead(self.read)
        self._has_own_lead = lead is None
        self._far_side = far_side
        self._socket = link
        self._process = os.getpid()
        self._sending = threading.Lock()
        self._state = threading.Lock()
        self._pending: dict[int, PendingCall] = {}
        self._last_call = 0
        self._reason: AirlockError | None = None
        self._assembler = FrameAssembler()
        self._counts: list[int] = []
        self._owner: Owner | None = None
        self._keeper: threading.Thread | None = None

    def fileno(self) -> int:
        """The socket's descriptor, for ``poll``."""
        return self._socket.fileno()

    def attach(self, owner: Owner, early: list[Frame]) -> None:
        """Begins to hand out what arrives, and first what has arrived already."""
        self._owner = owner
        try:
            self._hand_out(early)
        except AirlockError as error:
            self._end(error)

    def keep(self, name: str) -> None:
        """Has a daemon thread of this name read where no other thread does."""
        self._keeper = threading.Thread(target=self.lead.keep, name=name, daemon=True)
        self._keeper.start()

    def _receive(self) -> list[Frame]:
        """Blocks for the next bytes and returns the frames that they complete."""
        try:
            # Received and noted by one call into C, as in _transmit: what is taken and not counted would be lost.
            self._counts.extend(map(self._socket.recv_into, (self._assembler.target,)))
        except OSError as error:
            raise Disconnected(f"the connection to {self._far_side} broke: {error}") from error
        if self._counts[0] == 0:
            raise Disconnected(f"{self._far_side} closed the connection")
        return self._assembler.advance(self._counts[0])

    def read(self, seconds: float | None = None) -> None:
        """Reads once, or waits so long for something to read, and hands out what came.

        Ends the channel where that fails. Called by whoever leads, and by nobody else.
        """
        try:
            if seconds is not None and not self._has_something(seconds):
                return
            self._hand_out(self._receive())
        except AirlockError as error:
            self._end(error)
        except BaseException:
            # An interrupt (Ctrl-C) while nothing was taken from the stream harms nobody; later, frames may be lost.
            if self._counts:
                self._end(Disconnected("the connection ended: reading was interrupted in the middle of a message"))
            raise
        self._counts.clear()

    def _has_something(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def _hand_out(self, received: list[Frame]) -> None:
        assert self._owner is not None
        for frame in received:
            self._dispatch(frame, self._owner)

    def _dispatch(self, frame: Frame, owner: Owner) -> None:
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
            owner.received(frame)

    def _end(self, reason: AirlockError) -> None:
        with self._state:
            is_first = self._reason is None
            if self._reason is None:
                self._reason = reason
            pending, self._pending = self._pending, {}
        if not is_first:
            return
        self._shut()
        if self._has_own_lead:
            self.lead.end()
        if self._owner is not None:
            self._owner.ended(self._reason, list(pending.values()))

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other side was faster.

    def send(self, frame: bytes) -> None:
        """Sends one frame. Blocks while the other side takes nothing; what comes in meanwhile is read by whoever leads.

        What interrupts it (Ctrl-C, or what another signal's handler raises) passes through. Where a part of the frame
        is on its way by then, the channel ends: whatever came next would be taken for the rest of it.

        Raises:
            Unsent: the channel had ended before.
            Disconnected: it ended in the middle.
        """
        self.check_process()
        sent: list[int] = []
        with self._sending:
            try:
                self._transmit(frame, sent)
            except ConnectionError as error:
                # Whoever reads may still find why, in what the server said before it closed the connection.
                raise self._broken(error, Disconnected if sent else Unsent) from error
            except BaseException as error:
                if 0 < sum(sent) < len(frame):
                    self._end(Disconnected("the connection ended: sending was interrupted in the middle of a message"))
                if isinstance(error, OSError):
                    raise self._broken(error, Disconnected if sent else Unsent) from error
                raise

    def _transmit(self, frame: bytes, sent: list[int]) -> None:
        """Sends ``frame``, and notes in ``sent`` how much went each time."""
        # Sent and noted by one call into C: a signal's handler, which may raise, runs before or after it. Between
        # `count = send(…)`'s two halves it would make a half frame look as if nothing had been sent.
        try:
            sent.extend(map(self._socket.send, (frame,), (socket.MSG_DONTWAIT,)))
            if sent[0] == len(frame):
                return
        except BlockingIOError:
            pass
        # Two sides that both send and don't read would wait for each other for ever.
        self.lead.call_keeper()
        rest = memoryview(frame)[sum(sent) :]
        while rest:
            sent.extend(map(self._socket.send, (rest,)))
            rest = rest[sent[-1] :]

    def _broken(self, error: OSError, kind: type[Disconnected]) -> AirlockError:
        if self._reason is not None and not isinstance(self._reason, Disconnected):
            return self._reason.fresh()
        said = (
            self._reason.message if self._reason is not None else f"the connection to {self._far_side} broke: {error}"
        )
        return kind(said)

    def check_process(self) -> None:
        """Raises Disconnected in a forked child: the channel is its parent's; two readers would tear it apart."""
        if os.getpid() != self._process:
            raise Disconnected(
                "this connection belongs to the process that was forked",
                hint="connect again in the child, or start it with the spawn method",
            )

    def call(self, pending: PendingCall, peer: int, body: bytes, deadline_ms: float | None = None) -> int:
        """Sends a call; its answer goes to ``pending``. Returns the call's number, for :meth:`cancel`.

        Where the channel breaks in the middle, whoever reads finds out why, and ``pending`` is told.

        Raises:
            Unsent: the channel had ended before.
            AirlockError: why it ended, or why the call can't be sent.
        """
        # Before the lock, which another thread may have held when this process was forked.
        self.check_process()
        with self._state:
            if self._reason is not None:
                raise self._reason.fresh() if type(self._reason) is not Disconnected else Unsent(self._reason.message)
            number = self._free_number()
            self._pending[number] = pending
        try:
            self.send(build_frame(frames.CALL, peer, number, body, deadline_ms))
        except BaseException as error:
            if isinstance(error, Disconnected) and not isinstance(error, Unsent):
                return number
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
        """Ends the channel, and with it the calls under way. Safe to call twice, and from any thread."""
        if os.getpid() != self._process:
            return
        self._end(Disconnected("the connection was closed"))
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        # Not under a thread that is sending: its descriptor's number may be another's a moment later.
        with self._sending:
            self._socket.close()
