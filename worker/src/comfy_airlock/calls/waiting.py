"""How a caller waits for its answer: what threads and coroutines share, and a thread in its seat. Twin of
:mod:`comfy_airlock.calls.waiting_on_loop`.

Whoever waits is there for its callee meanwhile: it tells its listener how the call goes, and carries out the calls that
the callee makes back on its behalf.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from comfy_airlock.calls.deadline import Deadline
from comfy_airlock.calls.progress import WaitingProgress
from comfy_airlock.calls.references import References
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, Cancelled
from comfy_airlock.wire.exceptions import rebuild
from comfy_airlock.wire.frame import Frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Lead, Seat

if TYPE_CHECKING:
    from comfy_airlock.calls.load import Load
    from comfy_airlock.calls.service import Service
    from comfy_airlock.wire.channel import Channel
    from comfy_airlock.wire.credit import Credit

OnProgress = Callable[[Any], None]

Outcome = Frame | AirlockError
"""The frame that answered a call, or why none will come."""


class Asker(Protocol):
    """Who makes calls to one other side: :class:`comfy_airlock.calls.pair.Pair`."""

    @property
    def codec(self) -> Codec: ...

    @property
    def service(self) -> Service: ...

    @property
    def references(self) -> References: ...

    @property
    def name(self) -> str | None: ...

    def drop(self, frame: Frame, /) -> None:
        """Nobody will look at a frame that came: what it holds is given back."""


def cancelled_with_its_cause() -> Cancelled:
    """What a call is told when the one that it is made for was cancelled."""
    return Cancelled("the call was cancelled, as the one that it was made for was")


def conclude(codec: Codec, outcome: Outcome) -> Any:
    """The value that a call returned.

    Raises:
        Exception: whatever the callee raised.
        AirlockError: the call did not come to an end.
    """
    if isinstance(outcome, AirlockError):
        raise outcome
    return _value_of(outcome.kind, codec.decode(outcome.body))


def _value_of(kind: int, body: Any) -> Any:
    if kind == frames.RESULT:
        return body
    remote = body.get("exception") if isinstance(body, dict) else None
    if isinstance(remote, dict):
        raise rebuild(remote)
    raise AirlockError.from_wire(body)


class Waiter:
    """What the two ways of waiting share: where the call went, and its listener.

    Attributes:
        asker: who makes the call.
        on_progress: who is told how it goes.
        channel: where it went; None where it was not sent.
        peer, number: what it is known by there.
        deadline: where nobody else keeps it: on a direct channel, and as long as nothing was sent.
        context: the call on whose behalf it is made.
        load: what it carries besides plain values.
        was_unsent: whether nothing of it was sent, as whoever tells its outcome can't know.
        may_be_sent: whether it was interrupted when nobody knew how far it was.
    """

    # One is made for each call, so there is no __init__, which C would enter the interpreter for once more; what most
    # of them never set is a default of the class.
    asker: Asker
    on_progress: OnProgress | None
    channel: Channel | None = None
    peer = 0
    number = 0
    deadline: Deadline | None = None
    context: IncomingCall | None = None
    load: Load | None = None
    was_unsent = False
    may_be_sent = False
    # What waits for credit to be sent: the body, and the call that it is made for.
    _held: tuple[bytes, int | None] | None = None
    _listener_error: Exception | None = None
    _progress: WaitingProgress | None = None

    def asked(self, channel: Channel, peer: int, number: int) -> None:
        """Where it went, and what it is known by there."""
        self.channel, self.peer, self.number = channel, peer, number

    def cancelled(self) -> None:
        """The call that this one is made for was cancelled."""
        self._put(cancelled_with_its_cause())

    def answered(self, frame: Frame) -> None:
        """As :class:`PendingCall` has it, and so the next two."""
        self._arrived(frame)

    def failed(self, error: AirlockError) -> None:
        self._arrived(error)

    def _arrived(self, outcome: Outcome) -> None:
        """The call waits for no process that is still to come: before it is heard that the one which took it ended."""
        if self.load is not None:
            self.load.settled()
        self._put(outcome)

    def _put(self, outcome: Outcome) -> None:
        """Hands the outcome to who waits. Called on any thread."""
        raise NotImplementedError

    def nested(self, call: IncomingCall) -> None:
        raise NotImplementedError

    def hold(self, body: bytes, timeout: float | None, parent: int | None) -> None:
        """Nothing was sent, for want of credit: :meth:`wait` sends it once there is some."""
        self._held = body, parent
        self.deadline = None if timeout is None else Deadline(timeout, self.asker.name, None)
        self._credit.enter(self.peer, self)

    def _send_held(self) -> bool:
        """Sends what waits for credit, where there is some."""
        assert self.channel is not None and self._held is not None
        body, parent = self._held
        deadline_ms = None if self.deadline is None else self.deadline.seconds_left() * 1000
        cargo = self.load and self.load.cargo
        self.number = self.channel.call(self, self.peer, body, deadline_ms, parent, cargo, self)
        if not self.number:
            return False
        # From here on the server keeps it.
        self._held = self.deadline = None
        self._credit.leave(self.peer, self)
        return True

    @property
    def _credit(self) -> Credit:
        assert self.channel is not None and self.channel.credit is not None
        return self.channel.credit

    @property
    def line(self) -> object:
        """Who sends before and after it, where it waits for credit."""
        raise NotImplementedError

    def call_back(self) -> None:
        """There is something for who waits here. Called on any thread."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Cancels the call, if it was sent and has no answer; a channel that is gone has cancelled it already."""
        if self._held is not None:
            self._held = None
            self._credit.leave(self.peer, self)
            if self.load is not None:
                self.load.unsent(may_be_sent=self.may_be_sent)
        elif self.channel is not None:
            # Before anybody hears of it: what is not delivered is given back.
            if self.load is not None:
                self.load.abandoned()
            try:
                self.channel.cancel(self.peer, self.number)
            except AirlockError:
                pass

    def progressed(self, frame: Frame) -> None:
        """Called on the thread that reads."""
        if self.on_progress is None:
            self.asker.drop(frame)
            return
        if self._progress is None:
            self._progress = WaitingProgress()
        for dropped in self._progress.put(frame):
            self.asker.drop(dropped)
        self._has_progress()

    def _has_progress(self) -> None:
        """There is something for the listener. Called on the thread that reads."""
        raise NotImplementedError

    def _report_all(self, _: object = None) -> None:
        if self._progress is not None:
            for frame in self._progress.take():
                self._report(frame)

    def _report(self, frame: Frame) -> None:
        """Tells the listener. What it raises is its own call's, not the connection's or the event loop's: kept."""
        try:
            said = self.asker.codec.decode(frame.body)
            if self.on_progress is not None:
                self.on_progress(said)
        except Exception as error:  # noqa: BLE001 - a listener may do anything.
            self._listener_error = self._listener_error or error

    def _conclude(self, outcome: Outcome) -> Any:
        """The value that the call returned.

        Raises:
            Exception: whatever the callee raised; the first that the listener raised before that.
            AirlockError: the call did not come to an end.
        """
        if isinstance(outcome, AirlockError):
            raise self._listener_error or outcome
        body = self.asker.codec.decode(outcome.body)
        fields = body if outcome.kind == frames.ERROR and isinstance(body, dict) else {}
        if fields.get("delivered") is False and self.load is not None:
            self.load.undelivered()
        if self._listener_error is not None:
            raise self._listener_error
        return _value_of(outcome.kind, body)


class ThreadWaiter(Seat, Waiter):
    """A thread that waits for one answer, and reads for all others meanwhile where no other thread does."""

    may_lead = True
    """Whether this thread may read, and so be beyond the reach of who would cancel its call."""
    _outcome: Outcome | None = None
    _inbox: deque[IncomingCall] | None = None

    @property
    def line(self) -> object:
        """What a loop's coroutines have waiting, which may be below this very thread, is not waited for."""
        return self

    def _put(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.call_back()

    def _has_progress(self) -> None:
        self.call_back()

    def nested(self, call: IncomingCall) -> None:
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(call)
        self.call_back()

    def wait(self) -> Any:
        """Blocks for the answer and decodes it in this thread, where listeners are told and calls back carried out.

        Raises what the listener raised, too, once the answer has come; DeadlineExceeded where it doesn't in time.
        """
        assert self.channel is not None
        lead, deadline = self.channel.lead, self.deadline
        while True:
            # Before looking: what comes from here on calls again. The outcome first: nothing comes after it.
            self.taken_care_of = False
            outcome = self._outcome
            if self._inbox or self._progress is not None:
                self._empty_inbox()
            if outcome is not None:
                return self._conclude(outcome)
            if deadline is not None and deadline.seconds_left() <= 0:
                raise deadline.exceeded()
            if self._held is not None and self._send_held():
                deadline = None
            if self.may_lead:
                lead.wait(self, None if deadline is None else deadline.until)
            else:
                self._follow(lead, deadline)

    def _follow(self, lead: Lead, deadline: Deadline | None) -> None:
        """Sleeps until there is something, which others read."""
        lead.attend(self)
        self.hang_bell()
        try:
            if not self.taken_care_of:
                self.sleep(None if deadline is None else deadline.seconds_left())
        finally:
            self.take_bell_down()
            lead.dismiss(self)

    def _empty_inbox(self) -> None:
        while self._inbox:
            call = self._inbox.popleft()
            # What was said before it was made comes first.
            self._report_all()
            self.asker.service.run(call)
        self._report_all()
