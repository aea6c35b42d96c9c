"""A stream of frames to one other side: calls and answers in both directions, sent from any thread, read by a leader.

Invariant: every call that was sent ends exactly once: with its answer, its error, or whatever the owner makes of the
channel's end. Every call that came is answered at most once. Whoever reads hands frames on and does nothing else with
them: an answer to its caller, a call that is made for one of ours to whoever waits for that one, others to the owner.
Bodies are decoded by whom they are for: the kind of tensor that a thread builds depends on the thread (inference mode).
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

from comfy_airlock.wire.aside import Aside
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.credit import Credit, Turn
from comfy_airlock.wire.errors import AirlockError, Cancelled, Disconnected, LimitExceeded, ProtocolError
from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.frame import (
    CALL,
    CANCEL,
    ERROR,
    HEADER_BYTES,
    PROGRESS,
    RESULT,
    RETURN,
    Body,
    Cargo,
    Frame,
    build_frame,
    pack_plain_header,
    unpack_plain_header,
)
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Lead, Stream
from comfy_airlock.wire.limits import CALLS_MAX, FRAME_BYTES_MAX, INCOMING_BYTES_MAX, INCOMING_BYTES_READ_ON
from comfy_airlock.wire.receiving import Receiver
from comfy_airlock.wire.recipients import Owner, PendingCall, WaitingThread
from comfy_airlock.wire.sending import Sender, Torn

_NUMBER_MAX: Final = 0xFFFF_FFFF

_BYTES_COUNTED_MIN: Final = 1024
"""Bytes of a call below which they are not counted: there are no more than CALLS_MAX of those."""


class Unsent(Disconnected):
    """The channel had ended before anything of a message was sent: the message may go another way."""


class _InChild:
    """What a forked child does with its copy of a channel: closes it, and takes no calls for it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def close(self) -> None:
        self._channel.forked()


def _nobody_called(call: IncomingCall) -> None:
    raise AssertionError(f"call {call.number} came before the channel had an owner")


class Channel:
    """One stream socket that frames go over.

    Attributes:
        stream: what it is read with: itself, where that is nothing else.
        lead: who reads.
        receiver: where :meth:`read` finds what has come.
        credit: what may be sent to each peer; None where nothing bounds it, as on a direct channel.
    """

    def __init__(
        self, link: socket.socket, codec: Codec, far_side: str, stream: Stream | None = None, *, is_direct: bool = True
    ) -> None:
        """
        Args:
            link: connected; the channel's to close.
            codec: for what the two sides tell each other of the channel itself.
            far_side: what it leads to, for errors: "the server".
            stream: what it is read with, where that is several channels in one; by default it is read alone.
            is_direct: whether nobody stands between, who would keep deadlines and take the answers to calls given up.
        """
        # A pack may have set a timeout for all sockets to come.
        link.settimeout(None)
        self._socket = link
        self._reason: AirlockError | None = None
        # Why no call is taken: the reason that it ended for, or that it was left, or that it is another process's.
        self._refusal: AirlockError | None = None
        self._in_child = _InChild(self)
        held_by_this_process.add(self._in_child)
        self.codec = codec
        self.is_direct = is_direct
        self.stream: Stream = stream or self
        self.lead = Lead(self.read, lambda: self.is_full) if stream is None else stream.lead
        self.has_own_lead = stream is None
        self._far_side = far_side
        self._sender = Sender(link, self.lead.call_keeper, self._sending_failed)
        self.credit: Credit | None = None
        self._aside = Aside()
        self._state = threading.Lock()
        self._pending: dict[int, PendingCall] = {}
        # Their numbers are not free before their answers have come, which somebody else's would be taken for.
        self._given_up: dict[int, float] = {}
        self._numbers = itertools.count(1)
        self._incoming: dict[int, IncomingCall] = {}
        self._incoming_bytes = 0
        # When a call of a peer's was answered last, on the monotonic clock.
        self.answered_at = time.monotonic()
        self.receiver = Receiver(link)
        self._owner: Owner | None = None
        self._called: Callable[[IncomingCall], object] = _nobody_called
        self._keeper: threading.Thread | None = None

    def fileno(self) -> int:
        """The socket's descriptor, for ``poll``."""
        return self._socket.fileno()

    def attach(self, owner: Owner, early: list[Frame]) -> None:
        """Begins to hand out what arrives, and first what has arrived already."""
        self._owner, self._called = owner, owner.called
        try:
            self._hand_out(early)
        except AirlockError as error:
            self._end(error)

    def keep(self, name: str) -> None:
        """Has a daemon thread of this name read where no other thread does."""
        self._keeper = threading.Thread(target=self.lead.keep, name=name, daemon=True)
        self._keeper.start()

    def read(
        self,
        seconds: float | None = None,
        number: int = 0,
        called: Callable[[IncomingCall], object] | None = None,
    ) -> Body | None:
        """Reads once, or waits so long for something to read, and hands out what came.

        Ends the channel where that fails. Called by whoever leads, and by nobody else.

        Args:
            number: a call that the reader waits for.
            called: where the reader looks for calls next, so that it needn't be woken; by default they are the owner's.

        Returns:
            The result of that call, where that is what came; it is handed to nobody then.
        """
        receiver = self.receiver
        counts, assembler = receiver.counts, receiver.assembler
        has_part = assembler.has_part
        count = -1
        try:
            if seconds is not None and not receiver.has_something(seconds):
                return None
            if receiver.may_spin or counts or has_part:
                receiver.receive()
                count = counts[0]
                counts.clear()
            else:
                # What receive does, in fewer steps: no signal's handler runs between a loop's step and its variable.
                for count in receiver.arrivals:  # noqa: B007 - read below.
                    break
            buffer = assembler.buffer
            length, kind, peer, call = unpack_plain_header(buffer)
            # Where calls follow one another, one whole frame comes at a time. For two kinds this does what _hand_out
            # does for any frame, in fewer steps: two processes that take turns find each other's caches cold.
            if length == count - HEADER_BYTES and not has_part:
                if kind == RESULT and call == number:
                    self._pending.pop(number, None)
                    return buffer[HEADER_BYTES:count]
                incoming = self._incoming
                if kind == CALL and length < _BYTES_COUNTED_MIN and len(incoming) < CALLS_MAX:
                    asked = IncomingCall(self, peer, call, buffer[HEADER_BYTES:count])
                    if call and incoming.setdefault(call, asked) is asked:
                        (called or self._called)(asked)
                        return None
            if not count:
                self._closed()
            self._hand_out(assembler.advance(count))
        except BaseException as error:
            if not self._has_failed(error, has_taken=bool(counts) or count >= 0):
                raise
        return None

    def _has_failed(self, error: BaseException, *, has_taken: bool) -> bool:
        """Ends the channel where reading it came to this error; False where that interrupted it, and goes on.

        Args:
            has_taken: whether something was taken from the stream.
        """
        if isinstance(error, BlockingIOError) and not has_taken:
            self.stream.nothing_came()
        elif isinstance(error, AirlockError):
            self._end(error)
        elif isinstance(error, OSError):
            self._end(Disconnected(f"the connection to {self._far_side} broke: {error}"))
        else:
            # An interrupt (Ctrl-C) while nothing was taken harms nobody; later, frames may be lost.
            if has_taken:
                self._end(Disconnected("the connection ended: reading was interrupted in the middle of a message"))
            return False
        return True

    def read_now(self) -> None:
        """Reads what has come, if something has. Called by whoever leads."""
        if self.receiver.glance():
            self.read()

    def nothing_came(self) -> None:
        """It is waited for as long as it takes."""

    def may_look(self) -> bool:
        """Whether it may pay to :meth:`look` this time."""
        return self.receiver.may_look()

    def look(self) -> None:
        """As :meth:`read_now`, and goes on looking for about a tenth of a millisecond."""
        if self.receiver.looks():
            self.read()

    def _closed(self) -> NoReturn:
        raise Disconnected(f"{self._far_side} closed the connection")

    @property
    def has_ended(self) -> bool:
        """Whether nothing is sent or read any more."""
        return self._reason is not None

    def leave(self) -> None:
        """Takes no more calls of this side's, other than for those that came; those under way go on."""
        with self._state:
            self._refusal = self._refusal or Disconnected("the server asked for this line to be left")

    def use_again(self) -> None:
        """Takes calls again, after :meth:`leave`."""
        with self._state:
            self._refusal = self._reason

    @property
    def calls_made(self) -> int:
        """How many calls of this side's wait for their answers."""
        return len(self._pending)

    @property
    def calls_taken(self) -> int:
        """How many calls of the other side's are to be answered."""
        return len(self._incoming)

    def _hand_out(self, received: list[Frame]) -> None:
        for each in received:
            is_laden = each.has_references or each.has_arrays or each.attachments
            frame = self._laden(each) if is_laden else each
            kind, peer, number, body, deadline_ms, parent = frame[:6]
            if kind == RESULT or (kind == ERROR and number):
                pending = self._pending.pop(number, None)
                if pending is None:
                    self._answered_late(frame)
                else:
                    pending.answered(frame)
            elif kind == CALL:
                if number == 0 or number in self._incoming or self._is_crowded:
                    raise self._refused(number)
                call = self._incoming[number] = IncomingCall(self, peer, number, body)
                if deadline_ms is not None:
                    call.expires(deadline_ms)
                if len(body) >= _BYTES_COUNTED_MIN or is_laden:
                    call.has_references = frame.has_references
                    call.size = len(body)
                    self._incoming_bytes += call.size
                if parent is None:
                    self._called(call)
                else:
                    self._called_back(call, parent)
            else:
                self._dispatch(frame)

    @property
    def _is_crowded(self) -> bool:
        """Whether the other side may have no more calls under way here."""
        return len(self._incoming) >= CALLS_MAX or self._incoming_bytes >= INCOMING_BYTES_MAX

    @property
    def is_full(self) -> bool:
        """Whether enough has come to be worked off before more is read, and nobody here waits for what is to come."""
        if self._incoming_bytes <= INCOMING_BYTES_READ_ON or self._pending:
            return False
        return self.credit is None or not self.credit.is_awaited

    def _laden(self, frame: Frame) -> Frame:
        assert self._owner is not None
        # What is returned is the owner's to handle, and no value.
        return frame if frame.kind == RETURN else frame._replace(body=self._owner.laden(frame))

    def _dispatch(self, frame: Frame) -> None:
        """Hands out what is rarer than calls and their answers."""
        assert self._owner is not None
        if frame.kind == CANCEL:
            call = self._incoming.get(frame.call)
            # A cancel may cross the answer to its call.
            if call is not None:
                call.cancel()
                if call.service is None:
                    # It waits for its turn, which may be long in coming.
                    reason = Cancelled("the call was cancelled before it ran")
                    self.fail_aside(call, self.codec.encode(reason.to_wire()))
        elif frame.kind == ERROR:
            raise AirlockError.from_wire(self.codec.decode(frame.body))
        elif frame.kind == PROGRESS:
            pending = self._pending.get(frame.call)
            if pending is not None:
                pending.progressed(frame)
            elif frame.has_references:
                self._owner.received(frame)
        else:
            self._owner.received(frame)

    def _answered_late(self, frame: Frame) -> None:
        """An answer crossed the cancel of its call."""
        with self._state:
            self._given_up.pop(frame.call, None)
        if frame.has_references and self._owner is not None:
            self._owner.received(frame)

    def _refused(self, number: int) -> AirlockError:
        if self._is_crowded:
            held = f"{len(self._incoming)} calls under way here, of {self._incoming_bytes} bytes"
            return LimitExceeded(f"{self._far_side} has {held}, as many as are allowed")
        return ProtocolError(f"{self._far_side} called with number {number}, which is in use or none")

    def _called_back(self, call: IncomingCall, parent: int) -> None:
        """The callee of a call of ours calls back: whoever waits for that one carries it out."""
        pending = self._pending.get(parent)
        if pending is not None:
            pending.nested(call)
            return
        call.cancel()
        self._called(call)

    def answer(self, call: IncomingCall, kind: int, body: bytes, cargo: Cargo | None = None) -> bool:
        """Sends the answer to a call, whose number is free from now on. False where it was answered before.

        Whoever asked may be gone by now.

        Raises:
            LimitExceeded: it is too large to be sent; the call is still to be answered.
        """
        number = call.number
        if self._incoming.pop(number, None) is not call:
            return False
        if call.peer:
            # What the server asks is no work.
            self.answered_at = time.monotonic()
        if call.size:
            if call.has_references and self._owner is not None:
                # Nobody decoded it, as one that is cancelled before its turn: what it holds is given back all the same.
                call.has_references = False
                self._owner.received(Frame(CALL, call.peer, number, call.body, has_references=True))
            self.decoded(call)
        call.is_answered = True
        try:
            if cargo is None and len(body) <= FRAME_BYTES_MAX and self.credit is None and self._refusal is None:
                # What send does for most frames.
                self._sender.send(pack_plain_header(len(body), kind, call.peer, number) + body)
            elif not self._send_answer(call, kind, body, cargo):
                # The loop is not to wait for credit: a thread does.
                self._incoming[number] = call
                call.is_answered = call.is_on_loop = False
                self.answer_aside(call, kind, body, cargo)
        except AirlockError as error:
            # Where the channel has ended, whoever asked is gone, and this is why.
            if isinstance(error, LimitExceeded) and self._reason is None:
                self._incoming[number] = call
                call.is_answered = False
                raise
        return True

    def _send_answer(self, call: IncomingCall, kind: int, body: bytes, cargo: Cargo | None) -> bool:
        turn = call if call.is_on_loop else None
        return self.send(kind, call.peer, call.number, body, cargo=cargo, turn=turn)

    def decoded(self, call: IncomingCall) -> None:
        """A call's body is needed no more: it is no longer among what waits here."""
        size, call.size = call.size, 0
        self._incoming_bytes -= size
        # It may hold back releases for as long as it is there, and what is called may take long.
        call.body = b""

    def fail_aside(self, call: IncomingCall, body: bytes) -> None:
        """As :meth:`answer_aside`, with an error."""
        self.answer_aside(call, ERROR, body)

    def answer_aside(self, call: IncomingCall, kind: int, body: bytes, cargo: Cargo | None = None) -> None:
        """Answers a call, for the thread that reads: it must not wait until the other side does."""
        self._aside.submit(partial(self.answer, call, kind, body, cargo))

    def _end(self, reason: AirlockError) -> None:
        with self._state:
            is_first = self._reason is None
            if self._reason is None:
                self._reason = self._refusal = reason
            incoming, self._incoming = self._incoming, {}
        if not is_first:
            return
        # One by one: a call that is begun meanwhile either finds the reason, or is found here.
        unanswered = [self._pending.pop(number, None) for number in list(self._pending)]
        if isinstance(reason, (ProtocolError, LimitExceeded)):
            self._sender.send_last(build_frame(ERROR, 0, 0, self.codec.encode(reason.to_wire())))
        self._shut()
        if self.has_own_lead:
            self.lead.end()
        for call in incoming.values():
            call.cancel()
        if self._owner is not None:
            self._owner.ended(reason, [each for each in unanswered if each is not None])

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other side was faster.

    def send(
        self,
        kind: int,
        peer: int,
        call: int,
        body: bytes = b"",
        deadline_ms: float | None = None,
        parent: int | None = None,
        cargo: Cargo | None = None,
        turn: Turn | None = None,
    ) -> bool:
        """Sends one frame. Blocks while the other side takes nothing; what comes in meanwhile is read by whoever leads.

        What interrupts it passes through; in the middle of the frame it ends the channel.

        Args:
            kind, peer, call, body, deadline_ms, parent, cargo: the frame, as :func:`build_frame` has it.
            turn: who does not block for credit; by default this does.

        Returns:
            False where there is no credit for ``turn``: nothing was sent.

        Raises:
            LimitExceeded: it is larger than receivers take; nothing was sent.
            Unsent: the channel had ended before.
            Disconnected: it ended in the middle.
        """
        if self._refusal is not None:
            self._check_process()
        if deadline_ms is None and parent is None and cargo is None and len(body) <= FRAME_BYTES_MAX:
            # What build_frame does for most frames.
            frame = pack_plain_header(len(body), kind, peer, call) + body
        else:
            frame = build_frame(kind, peer, call, body, deadline_ms, parent, cargo)
        credit = self.credit
        if credit is None:
            self._sender.send(frame)
            return True
        sent: list[int] = []
        taken: dict[int, int] = {}
        try:
            if not credit.take(kind, peer, len(frame), taken, turn):
                if turn is not None:
                    return False
                credit.wait(kind, peer, len(frame), taken)
            self._sender.send(frame, sent)
        except BaseException:
            if taken and not sent:
                credit.give(peer, taken[peer])
            raise
        return True

    def _sending_failed(self, error: BaseException, has_begun: bool) -> None:
        """Raises what an error means for whoever sends, where it isn't that itself."""
        kind = Disconnected if has_begun else Unsent
        if isinstance(error, ConnectionError):
            # Whoever reads may still find why, in what the server said before it closed the connection.
            raise self._broken(error, kind) from error
        if self._sender.is_torn:
            self._end(Disconnected("the connection ended: sending was interrupted in the middle of a message"))
        if isinstance(error, (OSError, Torn)):
            raise self._broken(error, kind) from error

    def _broken(self, error: Exception, kind: type[Disconnected]) -> AirlockError:
        if self._reason is not None and not isinstance(self._reason, Disconnected):
            return self._reason.fresh()
        said = (
            self._reason.message if self._reason is not None else f"the connection to {self._far_side} broke: {error}"
        )
        return kind(said)

    def forked(self) -> None:
        """This process was forked, and the channel is its parent's."""
        self._socket.close()
        if self._reason is None:
            self._refusal = Disconnected(
                "this connection belongs to the process that was forked",
                hint="connect again in the child, or start it with the spawn method",
            )

    def _check_process(self) -> None:
        """Raises Disconnected in a forked child.

        To be called before a lock is taken, which another thread may have held when this process was forked.
        """
        if self._reason is None and self._refusal is not None and self._socket.fileno() < 0:
            raise self._refusal.fresh()

    def call(
        self,
        pending: PendingCall,
        peer: int,
        body: bytes,
        deadline_ms: float | None = None,
        parent: int | None = None,
        cargo: Cargo | None = None,
        turn: Turn | None = None,
    ) -> int:
        """Sends a call; its answer goes to ``pending``.

        Returns the call's number, for :meth:`cancel`; 0 where there is no credit for ``turn``: nothing was sent.
        Where the channel breaks in the middle, whoever reads finds out why, and ``pending`` is told.

        Raises:
            Unsent: the channel had ended before, and is direct: the call may go another way.
            AirlockError: why it ended, or why the call can't be sent.
        """
        if self._refusal is not None:
            self._check_process()
        number = self._begun(pending, parent)
        try:
            if not self.send(CALL, peer, number, body, deadline_ms, parent, cargo, turn):
                self._pending.pop(number, None)
                return 0
        except BaseException as error:
            if not self._will_be_told(error, number, pending):
                raise
        return number

    def _begun(self, pending: PendingCall, parent: int | None = None) -> int:
        """The number of a call that is about to be sent."""
        number = self._first_free(next(self._numbers))
        # Put there before looking: whoever ends the channel, or leaves it, says so before it looks.
        self._pending[number] = pending
        self._check_taken(number, parent)
        return number

    def _first_free(self, number: int) -> int:
        """The number of a call, of those that are in use of none."""
        while number > _NUMBER_MAX:
            # They begin again, and those before may be in use.
            number = (number - 1) % _NUMBER_MAX + 1
            if number in self._pending or number in self._given_up:
                number = next(self._numbers)
        return number

    def _check_taken(self, number: int, parent: int | None = None) -> None:
        """Raises why a call that is about to be sent can't be."""
        refusal = self._refusal
        # What is called on behalf of a call that came this way is part of what is finished before it is left.
        is_refused = refusal is not None and (parent is None or refusal is self._reason)
        if refusal is not None and is_refused and self._pending.pop(number, None) is not None:
            self._check_process()
            raise refusal.fresh() if type(refusal) is not Disconnected else Unsent(refusal.message)

    def _will_be_told(self, error: BaseException, number: int, pending: PendingCall) -> bool:
        """Whether whoever reads will find why a call was not sent, and fail it; otherwise it is forgotten."""
        is_unsent = isinstance(error, Unsent) and self.is_direct
        if isinstance(error, Disconnected) and not is_unsent:
            return True
        # It may go another way, or was interrupted; unless whoever ended the channel has taken it to be told.
        pending.was_unsent = self._pending.pop(number, None) is None and is_unsent
        return pending.was_unsent

    def ask(self, thread: WaitingThread, peer: int, body: bytes) -> Body | None:
        """Makes a call for a thread that waits for its answer, and reads once for that, where no other thread does.

        Does what :meth:`call` and :meth:`send` do for a call without deadline, parent and references, on a channel
        without credit: where calls follow one another, each is this and no more. Where two processes take turns on one
        core, each finds the caches used by the other, and steps cost several times what they cost in a loop.

        Returns:
            The body of the result, where that is what came next. Otherwise None: ``thread`` was told, or will be.

        Raises:
            AirlockError: as :meth:`call`.
        """
        length = len(body)
        if length > FRAME_BYTES_MAX:
            thread.number = self.call(thread, peer, body)
            return self.lead.read_once(thread, thread.number)
        number = next(self._numbers)
        if number > _NUMBER_MAX:
            number = self._first_free(number)
        self._pending[number] = thread
        if self._refusal is not None:
            self._check_taken(number)
        try:
            self._sender.send(pack_plain_header(length, CALL, peer, number) + body)
        except BaseException as error:
            if not self._will_be_told(error, number, thread):
                raise
        thread.number = number
        return self.lead.read_once(thread, number)

    def cancel(self, peer: int, number: int) -> bool:
        """Gives up a call: nobody waits for its answer, and the callee is told. False where it has its answer."""
        with self._state:
            call = self._pending.pop(number, None)
            if call is not None and self.is_direct:
                self._given_up[number] = time.monotonic()
        if call is None:
            return False
        self.send(CANCEL, peer, number)
        if self.is_direct and self._owner is not None:
            self._owner.gave_up()
        return True

    def given_up_since(self) -> float | None:
        """Since when, on the monotonic clock, the other side owes the answer to a call that was given up."""
        with self._state:
            return next(iter(self._given_up.values()), None)

    def close(self) -> None:
        """Ends the channel, and with it the calls under way. Safe to call twice, and from any thread."""
        if self._reason is None and self._socket.fileno() < 0:
            return
        self._end(Disconnected("the connection was closed"))
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        self._sender.close()
