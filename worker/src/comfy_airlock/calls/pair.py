"""This process and one other: the calls between them, the objects that each holds of the other's, and events.

Knows nothing of who the other is. Which way frames go, a line or the relay, is told by the route, asked for every call;
what is made on behalf of a call goes the way of that one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from comfy_airlock.calls.arrays import Arrays
from comfy_airlock.calls.context import current_call
from comfy_airlock.calls.deadline import CallTimeout, Deadline
from comfy_airlock.calls.event_handlers import EventHandler, EventHandlers
from comfy_airlock.calls.inference import InferenceMode
from comfy_airlock.calls.load import Load
from comfy_airlock.calls.objects import Objects
from comfy_airlock.calls.question import Question
from comfy_airlock.calls.references import References
from comfy_airlock.calls.releases import process_releases
from comfy_airlock.calls.service import Methods, Service
from comfy_airlock.calls.waiting import OnProgress, Outcome, ThreadWaiter
from comfy_airlock.calls.waiting_on_loop import LoopWaiter
from comfy_airlock.wire.channel import Channel, Unsent
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, Disconnected, WorkerDied
from comfy_airlock.wire.express import Ask, asking
from comfy_airlock.wire.frame import EVENT, RECLAIM, RELEASE, RETURN, Body, Frame
from comfy_airlock.wire.incoming import IncomingCall, Source
from comfy_airlock.wire.laden import LadenBody

Route = tuple[Channel, int]
"""A channel, and whom its frames are addressed to."""


class Pair:
    """One other process.

    Attributes:
        name: what it is called in errors: the pack's name.
        call_timeout: the time that calls to it have; on the relay the server keeps it.
        codec: for values between the two, objects by reference among them.
        events: who handles the other side's.
        on_released: told when objects of the other side's are not held any more.
    """

    on_released: Callable[[], object] | None = None

    def __init__(
        self,
        route: Callable[[], Route],
        relay: Route,
        *,
        name: str | None = None,
        reveals: bool,
        methods: Methods | None = None,
        pack: str | None = None,
        inference: InferenceMode | None = None,
        entangled: Callable[[], None] | None = None,
        open_leases: Callable[[], Any] = lambda: None,
    ) -> None:
        """
        Args:
            route: tells the way to the other process now.
            relay: the way that there always is.
            reveals: whether it may use all objects that are passed to it, or only those that were marked for it.
            methods, pack, inference: what it can call, as in :class:`Service`.
            entangled: called whenever each side has come to hold something of the other's. On any thread.
            open_leases: gives what memory is shared by; None where none is.
        """
        self._route = route
        self._relay = relay
        self.name = name
        self.call_timeout: CallTimeout | None = None
        # Over a line that has ended, or was left, nothing can be sent: the call goes another way then.
        self._ask: Ask | None = None
        self._entangled = entangled
        self.references = References(self, reveals)
        self.arrays = Arrays(open_leases)
        self.codec = Codec(references=self.references, arrays=self.arrays)
        self.service = Service(
            self.codec, self, {**Objects(self.references).methods, **(methods or {})}, pack, inference
        )
        self.events = EventHandlers(self._decoded)

    def goes_by(self, line: Route | None) -> None:
        """Tells of the line that the route leads over from now on; None where it is the relay."""
        self._ask = None if line is None else asking(*line)

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Calls a method of the other process, and blocks for its answer.

        Args:
            timeout: seconds until its deadline.

        Raises:
            Exception: whatever the method raised.
            AirlockError: the call did not come to an end, or could not be sent.
        """
        waiter = ThreadWaiter()
        waiter.asker = self
        waiter.on_progress = on_progress
        try:
            request = [method, [*args], keywords]
            body = self.codec.encode(request)
            ask = self._ask
            if (
                ask is not None
                and timeout is None
                and self.call_timeout is None
                and not (self.references.unsettled or self.arrays.unsettled)
                and current_call.get() is None
            ):
                # Most calls, and what most calls are is written in few steps.
                try:
                    answer = ask(waiter, body)
                except Unsent:
                    pass  # It may go another way.
                else:
                    return waiter.wait() if answer is None else self.codec.decode(answer)
            try:
                self._begin(waiter, request, body, timeout)
                return waiter.wait()
            finally:
                if waiter.context is not None:
                    waiter.context.off_cancel(waiter)
        except BaseException as error:
            # Ctrl-C, or what another signal's handler raised; a call that was answered is past cancelling.
            waiter.give_up()
            if not _may_go_again(waiter, error):
                raise
        return self.call(method, args, keywords, timeout, on_progress)

    async def acall(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """As :meth:`call`, in a coroutine; cancelling it cancels the call."""
        waiter = LoopWaiter(self, on_progress)
        try:
            request = [method, [*args], keywords]
            self._begin(waiter, request, self.codec.encode(request), timeout)
            return await waiter.wait()
        except BaseException as error:
            waiter.give_up()
            if not _may_go_again(waiter, error):
                raise
        finally:
            if waiter.context is not None:
                waiter.context.off_cancel(waiter)
        return await self.acall(method, args, keywords, timeout, on_progress)

    def _begin(self, waiter: ThreadWaiter | LoopWaiter, request: list[Any], body: bytes, timeout: float | None) -> None:
        """Sends a call, on behalf of the one that this code runs for, where that is still under way.

        Args:
            body: the request, encoded for the way that there is now.
        """
        context = current_call.get()
        # A task may outlive the call that it was started in.
        while context is not None and context.is_answered:
            context = context.outer
        if context is None:
            self._send_over(self._route(), waiter, request, body, timeout)
            return
        waiter.context = context
        context.on_cancel(waiter, waiter.cancelled)
        self._send_within(context, waiter, request, body, timeout)

    def _send_within(
        self,
        context: IncomingCall,
        waiter: ThreadWaiter | LoopWaiter,
        request: list[Any],
        body: bytes,
        timeout: float | None,
    ) -> None:
        """Sends what is called on behalf of a call: it has no more time than that one."""
        if context.until is not None:
            left = max(0.0, context.until - time.monotonic())
            timeout = left if timeout is None else min(left, timeout)
        # The innermost call of this pair's other side that this code runs for, if there is one.
        parent: IncomingCall | None = context
        while parent is not None and (parent.is_answered or parent.service is not self.service):
            parent = parent.outer
        if parent is None:
            route = self._route()
            if isinstance(waiter, ThreadWaiter) and cast("Channel", context.channel).lead is not route[0].lead:
                # Its cancel is read elsewhere, and has to find this thread where it can be woken.
                waiter.may_lead = False
            self._send_over(route, waiter, request, body, timeout)
        else:
            route = cast("Channel", parent.channel), parent.peer
            self._send_over(route, waiter, request, body, timeout, parent.number)

    def _send_over(
        self,
        route: Route,
        waiter: ThreadWaiter | LoopWaiter,
        request: list[Any],
        body: bytes,
        timeout: float | None,
        parent: int | None = None,
    ) -> None:
        load = self.settle(route[0])
        waiter.channel, waiter.peer = channel, peer = route
        deadline_ms = None
        if channel.is_direct and (timeout is not None or self.call_timeout is not None):
            waiter.deadline = Deadline(timeout, self.name, self.call_timeout)
            deadline_ms = waiter.deadline.seconds * 1000
        elif timeout is not None:
            deadline_ms = timeout * 1000
        # Before it is sent: from then on it may be answered.
        waiter.load = load
        if load is not None and channel.is_direct:
            # It is with the process at the end of this line, or with none: sending fails on a line that has ended.
            load.settled()
        try:
            waiter.number = channel.call(waiter, peer, body, deadline_ms, parent, load and load.cargo, waiter)
        except BaseException as error:
            waiter.load = None
            if load is not None:
                load.unsent(may_be_sent=waiter.may_be_sent)
            if not isinstance(error, Unsent) or parent is not None or channel is self._relay[0]:
                raise
            # A line that ended a moment ago, and its worker with it, and what it held: the relay starts a fresh one.
            waiter.deadline = None
            self._send_over(self._relay, waiter, request, self.codec.encode(request), timeout)
            return
        if not waiter.number:
            waiter.hold(body, timeout, parent)

    def ask(self, method: str, args: list[Any], told: Callable[[Outcome], object]) -> None:
        """Calls a method of the other process for nobody who waits, and on behalf of no call; see :class:`Question`."""
        channel, peer = self._route()
        Question(channel, told).ask(peer, self.codec.encode([method, args, {}]))

    def emit(self, name: str, value: Any) -> None:
        """Sends an event, which nobody answers. Blocks while the other side takes nothing, on an event loop too.

        Raises:
            ValueUnsupported, LimitExceeded: the value can't be sent.
            Disconnected: the other side is gone.
        """
        channel, peer = self._route()
        if channel.is_direct:
            body = self.codec.encode([name, value])
        else:
            body = self.arrays.inline(lambda: self.codec.encode([name, value]))
        load = self.settle()
        if load is not None:
            # Before it is sent, as with calls.
            load.settled()
        try:
            channel.send(EVENT, peer, 0, body, cargo=load and load.cargo)
        except BaseException:
            if load is not None:
                load.revert()
            raise

    def settle(self, channel: Source | None = None) -> Load | None:
        """What the message carries that this thread has encoded last; None where that is plain values.

        Args:
            channel: where it goes, if it is to take along what is to be said there.

        Raises:
            LimitExceeded: there is no memory for its arrays. It carries nothing then.
        """
        # Most hold none, and then this is all that it costs.
        if not (self.references.unsettled or self.arrays.unsettled):
            return None
        receipts = self.references.settle()
        try:
            arrays = self.arrays.settle()
        except BaseException:
            self.references.revert(receipts)
            raise
        if receipts is None and arrays is None:
            return None
        load = Load(self.references, receipts, arrays)
        if channel is not None and channel.is_direct:
            load.taking(self.arrays.take_returns())
        return load

    def laden(self, frame: Frame, *, is_direct: bool) -> Body:
        """The body of a frame that came with references, arrays or attachments. Called on the thread that reads.

        Raises:
            AirlockError: it names what the other side can't name.
        """
        body = self.references.hold(frame.body) if frame.has_references else LadenBody(frame.body)
        body.has_arrays = frame.has_arrays
        self.arrays.receive(body, frame.attachments, is_direct=is_direct)
        return body

    def on(self, name: str, handler: EventHandler | None) -> None:
        """Has events of this name handled, each with its value; None ends that."""
        self.events.on(name, handler)

    def end(self) -> None:
        """The other process is gone, or another is in its place: what either held of the other is no more."""
        self.arrays.end()
        self.end_references()

    def end_references(self) -> None:
        """As :meth:`end`, of all but the leases."""
        self.references.end()
        if self.on_released is not None:
            self.on_released()

    def received(self, frame: Frame, later: Callable[[Callable[[], None]], None], *, is_direct: bool = True) -> None:
        """Takes a frame that is no call and no answer that somebody waits for.

        Args:
            later: carries out an event's handler, off the thread that reads and in order.
            is_direct: whether it came over a line.

        Raises:
            ProtocolError: it says what the other side can't say.
        """
        if frame.kind == EVENT:
            if not self.events.take(frame, self.name, later):
                self.drop(frame)
        elif frame.kind == RELEASE:
            self._released(frame)
        elif frame.kind == RETURN:
            self.arrays.returned(frame.attachments, frame.call, is_direct=is_direct)
        elif frame.kind == RECLAIM:
            self.arrays.reclaim()
        else:
            self.drop(frame)

    def drop(self, frame: Frame) -> None:
        """Takes a frame that nobody waits for: what it holds is garbage as soon as it is decoded."""
        if frame.has_references:
            self._decoded(frame)

    def _released(self, frame: Frame) -> None:
        numbers = self._decoded(frame)
        if not (isinstance(numbers, list) and all(type(each) is int for each in numbers)):
            return

        def release() -> None:
            for number, count in zip(numbers[::2], numbers[1::2], strict=False):
                self.references.release(number, count)

        # Off the thread that reads: what is released may be garbage, and its finalizer may do anything.
        undecoded = self.references.undecoded
        process_releases.defer(partial(undecoded.are_gone, undecoded.last), release)

    def _decoded(self, frame: Frame) -> Any:
        try:
            return self.codec.decode(frame.body)
        except AirlockError:
            return None  # What nobody waits for harms nobody by being malformed.

    def may_discard(self) -> None:
        """Called before a stand-in is made."""
        process_releases.start()

    def entangled(self) -> None:
        """Each side holds something of the other's now."""
        if self._entangled is not None:
            self._entangled()

    def discard(self, number: int, receipts: int) -> None:
        """Called by the finalizer of a stand-in."""
        process_releases.put(self, number, receipts)

    def release(self, receipts: dict[int, int]) -> None:
        """Tells the other side that stand-ins of its objects are garbage."""
        channel, peer = self._route()
        flat = [each for item in receipts.items() for each in item]
        try:
            channel.send(RELEASE, peer, 0, self.codec.encode(flat))
        except AirlockError:
            pass  # It is gone, and its objects with it.
        if self.on_released is not None:
            self.on_released()


def _may_go_again(waiter: ThreadWaiter | LoopWaiter, error: BaseException) -> bool:
    """Whether a call never left: its line ended as it was about to, and what was told of that is not its own."""
    return waiter.was_unsent and isinstance(error, (WorkerDied, Disconnected))
