"""A stream of frames to one other side: calls and answers in both directions, sent from any thread, read by a leader.

Invariant: every call that was sent ends exactly once: with its answer, its error, or whatever the owner makes of the
channel's end. Every call that came is answered at most once. Whoever reads hands frames on and does nothing else with
them: an answer to its caller, a call that is made for one of ours to whoever waits for that one, others to the owner.
Bodies are decoded by whom they are for: the kind of tensor that a thread builds depends on the thread (inference mode).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from comfy_airlock.wire.aside import Aside
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.credit import Credit, Turn
from comfy_airlock.wire.errors import AirlockError, Cancelled, Disconnected, LimitExceeded, ProtocolError
from comfy_airlock.wire.express import answering, taking
from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.frame import (
    CALL,
    CANCEL,
    ERROR,
    PROGRESS,
    RESULT,
    RETURN,
    Cargo,
    Frame,
    build_frame,
)
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Lead, Stream
from comfy_airlock.wire.receiving import Receiver
from comfy_airlock.wire.recipients import Owner, PendingCall
from comfy_airlock.wire.sending import Sender, Torn
from comfy_airlock.wire.under_way import BYTES_COUNTED_MIN, CallsMade, CallsTaken


class Unsent(Disconnected):
    """The channel had ended before anything of a message was sent: the message may go another way."""


class _InChild:
    """What a forked child does with its copy of a channel: closes it, and takes no calls for it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def close(self) -> None:
        self._channel.forked()


def _shut(link: socket.socket, how: int) -> None:
    try:
        link.shutdown(how)
    except OSError:
        pass  # The other side was faster.


def _nobody_called(call: IncomingCall) -> None:
    raise AssertionError(f"call {call.number} came before the channel had an owner")


class Channel:
    """One stream socket that frames go over, or two, one for each direction.

    Attributes:
        stream: what it is read with: itself, where that is nothing else.
        lead: who reads.
        sender, receiver: the two directions.
        credit: what may be sent to each peer; None where nothing bounds it, as on a direct channel.
        made, taken: the calls that are under way over it, of this side's and of the other's.
        refusal: why no call is taken: the reason that it ended for, or that it was left, or is another process's.
        answered_at: when a call of a peer's was answered last, on the monotonic clock.
        take: reads once, for a thread that takes calls one by one, where no other thread reads and its seat is not
            taken care of. Gives a call that is one small frame; else None, and what came, if it did, was handed out.
        answer_plain: answers a call, whose body was decoded, with a result that holds no references and no arrays.
    """

    def __init__(
        self,
        links: Sequence[socket.socket],
        codec: Codec,
        far_side: str,
        stream: Stream | None = None,
        *,
        is_direct: bool = True,
    ) -> None:
        """
        Args:
            links: connected, and the channel's to close: one for both directions, or one to read and one to write to.
            codec: for what the two sides tell each other of the channel itself.
            far_side: what it leads to, for errors: "the server".
            stream: what it is read with, where that is several channels in one; by default it is read alone.
            is_direct: whether nobody stands between, who would keep deadlines and take the answers to calls given up.
        """
        # A pack may have set a timeout for all sockets to come.
        for link in links:
            link.settimeout(None)
        self._links = links
        self._socket = links[0]
        self._reason: AirlockError | None = None
        self.refusal: AirlockError | None = None
        self._in_child = _InChild(self)
        held_by_this_process.add(self._in_child)
        self.codec = codec
        self.is_direct = is_direct
        self.stream: Stream = stream or self
        self.lead = Lead(self.read, lambda: self.is_full) if stream is None else stream.lead
        self.has_own_lead = stream is None
        self._far_side = far_side
        self.sender = Sender(links[-1], self.lead.call_keeper, self._sending_failed)
        self.credit: Credit | None = None
        self._aside = Aside()
        self._state = threading.Lock()
        self.made = CallsMade()
        self.taken = CallsTaken()
        self.answered_at = time.monotonic()
        self.receiver = Receiver(links[0])
        self.take = taking(self)
        self.answer_plain = answering(self)
        self._owner: Owner | None = None
        self._called: Callable[[IncomingCall], object] = _nobody_called
        self._keeper: threading.Thread | None = None

    def fileno(self) -> int:
        """The descriptor that it is read by, for ``poll``."""
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

    def read(self, seconds: float | None = None) -> None:
        """Reads once, or waits so long for something to read, and hands out what came.

        Ends the channel where that fails. Called by whoever leads, and by nobody else.
        """
        counts = self.receiver.counts
        has_taken = False
        try:
            if seconds is None or self.receiver.has_something(seconds):
                self.receiver.receive()
                has_taken = True
                count = counts[0]
                counts.clear()
                self.received(count)
        except BaseException as error:
            if not self.has_failed(error, has_taken=has_taken or bool(counts)):
                raise

    def received(self, count: int) -> None:
        """Hands out what so many bytes complete that were just received."""
        if not count:
            self._closed()
        self._hand_out(self.receiver.assembler.advance(count))

    def has_failed(self, error: BaseException, *, has_taken: bool) -> bool:
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
            self.refusal = self.refusal or Disconnected("the server asked for this line to be left")

    def use_again(self) -> None:
        """Takes calls again, after :meth:`leave`."""
        with self._state:
            self.refusal = self._reason

    @property
    def calls_made(self) -> int:
        """How many calls of this side's wait for their answers."""
        return len(self.made.waiting)

    @property
    def calls_taken(self) -> int:
        """How many calls of the other side's are to be answered."""
        return len(self.taken.unanswered)

    def _hand_out(self, received: list[Frame]) -> None:
        for each in received:
            is_laden = each.has_references or each.has_arrays or each.attachments
            frame = self._laden(each) if is_laden else each
            kind, peer, number, body, deadline_ms, parent = frame[:6]
            if kind == RESULT or (kind == ERROR and number):
                pending = self.made.take(number)
                if pending is None:
                    self._answered_late(frame)
                else:
                    pending.answered(frame)
            elif kind == CALL:
                call = IncomingCall.of(self, peer, number, body)
                is_counted = len(body) >= BYTES_COUNTED_MIN or is_laden
                if not self.taken.put(call, len(body) if is_counted else 0):
                    raise self._refused(number)
                call.has_references = frame.has_references
                if deadline_ms is not None:
                    call.expires(deadline_ms)
                if parent is None:
                    self._called(call)
                else:
                    self._called_back(call, parent)
            else:
                self._dispatch(frame)

    @property
    def is_full(self) -> bool:
        """Whether enough has come to be worked off before more is read, and nobody here waits for what is to come."""
        if not self.taken.is_plenty or self.made.waiting:
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
            call = self.taken.unanswered.get(frame.call)
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
            pending = self.made.waiting.get(frame.call)
            if pending is not None:
                pending.progressed(frame)
            elif frame.has_references:
                self._owner.received(frame)
        else:
            self._owner.received(frame)

    def _answered_late(self, frame: Frame) -> None:
        """An answer crossed the cancel of its call."""
        self.made.answered_late(frame.call)
        if frame.has_references and self._owner is not None:
            self._owner.received(frame)

    def _refused(self, number: int) -> AirlockError:
        if self.taken.is_crowded:
            held = f"{self.calls_taken} calls under way here, of {self.taken.size} bytes"
            return LimitExceeded(f"{self._far_side} has {held}, as many as are allowed")
        return ProtocolError(f"{self._far_side} called with number {number}, which is in use or none")

    def _called_back(self, call: IncomingCall, parent: int) -> None:
        """The callee of a call of ours calls back: whoever waits for that one carries it out."""
        pending = self.made.waiting.get(parent)
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
        unanswered = self.taken.unanswered
        if unanswered.pop(number, None) is not call:
            return False
        if call.peer:
            # What the server asks is no work.
            self.answered_at = time.monotonic()
        if call.size:
            if call.has_references and self._owner is not None:
                # Nobody decoded it, as one that is cancelled before its turn: what it holds is given back all the same.
                call.has_references = False
                self._owner.received(Frame(CALL, call.peer, number, call.body, has_references=True))
            self.taken.decoded(call)
        call.is_answered = True
        try:
            turn = call if call.is_on_loop else None
            if not self.send(kind, call.peer, number, body, cargo=cargo, turn=turn):
                # The loop is not to wait for credit: a thread does.
                unanswered[number] = call
                call.is_answered = call.is_on_loop = False
                self.answer_aside(call, kind, body, cargo)
        except AirlockError as error:
            # Where the channel has ended, whoever asked is gone, and this is why.
            if isinstance(error, LimitExceeded) and self._reason is None:
                unanswered[number] = call
                call.is_answered = False
                raise
        return True

    def decoded(self, call: IncomingCall) -> None:
        """A call's body is needed no more."""
        self.taken.decoded(call)

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
                self._reason = self.refusal = reason
        if not is_first:
            return
        unanswered, given_up = self.made.end(), self.taken.end()
        if isinstance(reason, (ProtocolError, LimitExceeded)):
            self.sender.send_if_free(build_frame(ERROR, 0, 0, self.codec.encode(reason.to_wire())))
        self._shut()
        if self.has_own_lead:
            self.lead.end()
        for call in given_up:
            call.cancel()
        if self._owner is not None:
            self._owner.ended(reason, unanswered)

    def _shut(self) -> None:
        for link in self._links:
            _shut(link, socket.SHUT_RDWR)

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
        if self.refusal is not None:
            self._check_process()
        frame = build_frame(kind, peer, call, body, deadline_ms, parent, cargo)
        credit = self.credit
        if credit is None:
            self.sender.send(frame)
            return True
        sent: list[int] = []
        taken: dict[int, int] = {}
        try:
            if not credit.take(kind, peer, len(frame), taken, turn):
                if turn is not None:
                    return False
                credit.wait(kind, peer, len(frame), taken)
            self.sender.send(frame, sent)
        except BaseException:
            if taken and not sent:
                credit.give(peer, taken[peer])
            raise
        return True

    def _sending_failed(self, error: BaseException, has_begun: bool) -> None:
        """Raises what an error means for whoever sends, where it isn't that itself."""
        kind = Disconnected if has_begun else Unsent
        if isinstance(error, ConnectionError):
            # Whoever reads may still find why, in what the server said before it closed the connection. Where that is
            # another socket, which may be open yet, its end comes after what is there.
            for link in self._links[:-1]:
                _shut(link, socket.SHUT_RD)
            raise self._broken(error, kind) from error
        if self.sender.is_torn:
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
        for link in self._links:
            link.close()
        self.taken.unanswered.clear()
        if self._reason is None:
            self.refusal = Disconnected(
                "this connection belongs to the process that was forked",
                hint="connect again in the child, or start it with the spawn method",
            )

    def _check_process(self) -> None:
        """Raises Disconnected in a forked child.

        To be called before a lock is taken, which another thread may have held when this process was forked.
        """
        if self._reason is None and self.refusal is not None and self._socket.fileno() < 0:
            raise self.refusal.fresh()

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
        if self.refusal is not None:
            self._check_process()
        number = self.made.next_number()
        try:
            # Put there before looking: whoever ends the channel, or leaves it, says so before it looks.
            self.made.waiting[number] = pending
            self.check_taken(number, parent)
            try:
                if not self.send(CALL, peer, number, body, deadline_ms, parent, cargo, turn):
                    self.made.take(number)
                    return 0
            except BaseException as error:
                if not self.will_be_told(error, peer, number, pending):
                    raise
        except BaseException:
            # What it is for is an interrupt on the way to sending; whatever else was raised has done so.
            self.made.take(number)
            raise
        return number

    def check_taken(self, number: int, parent: int | None = None) -> None:
        """Raises why a call that is about to be sent can't be."""
        refusal = self.refusal
        # What is called on behalf of a call that came this way is part of what is finished before it is left.
        is_refused = refusal is not None and (parent is None or refusal is self._reason)
        if refusal is not None and is_refused and self.made.take(number) is not None:
            self._check_process()
            raise refusal.fresh() if type(refusal) is not Disconnected else Unsent(refusal.message)

    def will_be_told(self, error: BaseException, peer: int, number: int, pending: PendingCall) -> bool:
        """Whether whoever reads will find why a call was not sent, and fail it; otherwise it is forgotten."""
        is_unsent = isinstance(error, Unsent) and self.is_direct
        if isinstance(error, Disconnected) and not is_unsent:
            return True
        # It may go another way, or was interrupted; unless whoever ended the channel has taken it to be told.
        is_forgotten = self.made.take(number) is not None
        pending.was_unsent = is_unsent and not is_forgotten
        if is_forgotten and not isinstance(error, AirlockError):
            # An interrupt may come when it is sent and nobody knows of that: its callee is told that nobody waits.
            pending.may_be_sent = True
            if not self.sender.send_if_free(build_frame(CANCEL, peer, number)):
                self._aside.submit(partial(self._cancel_aside, peer, number))
        return pending.was_unsent

    def _cancel_aside(self, peer: int, number: int) -> None:
        try:
            self.send(CANCEL, peer, number)
        except AirlockError:
            pass  # It has ended, and whoever it led to knows.

    def cancel(self, peer: int, number: int) -> bool:
        """Gives up a call: nobody waits for its answer, and the callee is told. False where it has its answer."""
        if not self.made.give_up(number, is_owed=self.is_direct):
            return False
        self.send(CANCEL, peer, number)
        if self.is_direct and self._owner is not None:
            self._owner.gave_up()
        return True

    def close(self) -> None:
        """Ends the channel, and with it the calls under way. Safe to call twice, and from any thread."""
        if self._reason is None and self._socket.fileno() < 0:
            return
        self._end(Disconnected("the connection was closed"))
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        self.sender.close()
        self._socket.close()
