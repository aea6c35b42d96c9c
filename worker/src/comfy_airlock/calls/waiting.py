"""How a caller waits for its answer: a thread in its seat, a coroutine on a future. Twins of one interface.

Whoever waits is there for its callee meanwhile: it tells its listener how the call goes, and carries out the calls that
the callee makes back on its behalf.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

from comfy_airlock.calls.loops import LoopInbox
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, Cancelled, DeadlineExceeded
from comfy_airlock.wire.exceptions import rebuild
from comfy_airlock.wire.frame import Frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Lead, Seat
from comfy_airlock.wire.limits import GRACE_SECONDS
from comfy_airlock.wire.optional import standard

if TYPE_CHECKING:
    import asyncio

    from comfy_airlock.calls.service import Service
    from comfy_airlock.wire.channel import Channel

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
    def name(self) -> str | None: ...


class Deadline:
    """When a call's time is up, for a channel on which nobody else looks at that."""

    def __init__(self, seconds: float, pack: str | None) -> None:
        self.until = time.monotonic() + seconds
        self._seconds = seconds
        self._pack = pack

    def seconds_left(self) -> float:
        """Until it is up; never negative."""
        return max(0.0, self.until - time.monotonic())

    def exceeded(self) -> DeadlineExceeded:
        """What the caller is told."""
        whose = "the call" if self._pack is None else f"pack {self._pack}: the call"
        return DeadlineExceeded(
            f"{whose} took longer than its deadline of {self._seconds * 1000:.0f} ms",
            pack=self._pack,
            # In the server's words: callers need not know who looked at the clock.
            hint=f"give it more time; a worker that goes on for {GRACE_SECONDS:.0f} s more is ended",
        )


def conclude(codec: Codec, outcome: Outcome) -> Any:
    """The value that a call returned.

    Raises:
        Exception: whatever the callee raised.
        AirlockError: the call did not come to an end.
    """
    if isinstance(outcome, AirlockError):
        raise outcome
    body = codec.decode(outcome.body)
    if outcome.kind == frames.RESULT:
        return body
    remote = body.get("exception") if isinstance(body, dict) else None
    if isinstance(remote, dict):
        raise rebuild(remote)
    raise AirlockError.from_wire(body)


class _Waiter:
    """What the two ways of waiting share: where the call went, and its listener.

    Attributes:
        channel: where it went; None where it was not sent.
        peer, number: what it is known by there.
        deadline: for channels on which nobody else keeps it.
        context: the call on whose behalf it is made.
    """

    # One is made for each call: what most of them never set is a default of the class.
    channel: Channel | None = None
    peer = 0
    number = 0
    deadline: Deadline | None = None
    context: IncomingCall | None = None
    _listener_error: Exception | None = None

    def __init__(self, asker: Asker, on_progress: OnProgress | None) -> None:
        self._asker = asker
        self._on_progress = on_progress

    def cancelled(self) -> None:
        """The call that this one is made for was cancelled."""
        self.failed(Cancelled("the call was cancelled, as the one that it was made for was"))

    def failed(self, error: AirlockError) -> None:
        """No answer will come, and why. Called on the thread that reads."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Cancels the call, if it was sent and has no answer; a channel that is gone has cancelled it already."""
        if self.channel is not None:
            try:
                self.channel.cancel(self.peer, self.number)
            except AirlockError:
                pass

    def _report(self, frame: Frame) -> None:
        """Tells the listener. What it raises is its own call's, not the connection's or the event loop's: kept."""
        try:
            said = self._asker.codec.decode(frame.body)
            if self._on_progress is not None:
                self._on_progress(said)
        except Exception as error:  # noqa: BLE001 - a listener may do anything.
            self._listener_error = self._listener_error or error

    def _conclude(self, outcome: Outcome) -> Any:
        """As :func:`conclude`; and raises the first exception that the listener raised."""
        if self._listener_error is not None:
            raise self._listener_error
        return conclude(self._asker.codec, outcome)


class ThreadWaiter(_Waiter, Seat):
    """A thread that waits for one answer, and reads for all others meanwhile where no other thread does."""

    may_lead = True
    """Whether this thread may read, and so be beyond the reach of who would cancel its call."""
    _outcome: Outcome | None = None
    _inbox: deque[Frame | IncomingCall] | None = None

    def answered(self, frame: Frame) -> None:
        self._outcome = frame
        self.call_back()

    def failed(self, error: AirlockError) -> None:
        self._outcome = error
        self.call_back()

    def progressed(self, frame: Frame) -> None:
        self._put(frame)

    def nested(self, call: IncomingCall) -> None:
        self._put(call)

    def _put(self, item: Frame | IncomingCall) -> None:
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(item)
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
            if self._inbox:
                self._empty_inbox()
            if outcome is not None:
                return self._conclude(outcome)
            if deadline is not None and deadline.seconds_left() <= 0:
                raise deadline.exceeded()
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
            item = self._inbox.popleft()
            if isinstance(item, IncomingCall):
                self._asker.service.run(item)
            else:
                self._report(item)


class LoopWaiter(_Waiter):
    """A coroutine that waits for one answer, on the loop that it runs on."""

    def __init__(self, asker: Asker, on_progress: OnProgress | None) -> None:
        super().__init__(asker, on_progress)
        self._inbox = LoopInbox.of_running_loop()
        self._context = copy_context()
        self._future: asyncio.Future[Outcome] = self._inbox.loop.create_future()

    def answered(self, frame: Frame) -> None:
        self._inbox.put(self._settle, frame)

    def failed(self, error: AirlockError) -> None:
        self._inbox.put(self._settle, error)

    def progressed(self, frame: Frame) -> None:
        self._inbox.put(self._report, frame)

    def nested(self, call: IncomingCall) -> None:
        if not self._inbox.put(self._start, call):
            gone = Cancelled("whoever waited for the call that this one was made for is gone")
            self._asker.service.fail_aside(call, gone)

    def _start(self, call: IncomingCall) -> None:
        """Carries out a call back, in the context of the coroutine that waits."""
        self._context.copy().run(self._asker.service.start, call)

    def _settle(self, outcome: Outcome) -> None:
        # Cancelling the coroutine has cancelled the future.
        if not self._future.done():
            self._future.set_result(outcome)

    async def wait(self) -> Any:
        """Waits for the answer; decodes it in the loop's thread. Raises as :meth:`ThreadWaiter.wait`."""
        assert self.channel is not None
        reader = self._inbox.reader(self.channel) if self.channel.has_own_lead else None
        if reader is not None:
            reader.waiting += 1
            self.channel.lead.will_take()
            try:
                return await self._wait()
            finally:
                reader.waiting -= 1
        self.channel.lead.attend(self)
        try:
            return await self._wait()
        finally:
            self.channel.lead.dismiss(self)

    async def _wait(self) -> Any:
        deadline = self.deadline
        if deadline is not None:
            await standard("asyncio").wait([self._future], timeout=deadline.seconds_left())
            if not self._future.done():
                raise deadline.exceeded()
        return self._conclude(await self._future)
