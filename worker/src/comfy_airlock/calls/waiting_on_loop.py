"""A coroutine that waits for its answer, on a future. Twin of :class:`comfy_airlock.calls.waiting.ThreadWaiter`."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from comfy_airlock.calls.loops import LoopInbox
from comfy_airlock.calls.waiting import Asker, OnProgress, Outcome, Waiter
from comfy_airlock.wire.errors import Cancelled
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.optional import standard

if TYPE_CHECKING:
    import asyncio


class LoopWaiter(Waiter):
    """A coroutine that waits for one answer, on the loop that it runs on."""

    _will_report = False
    _turn: asyncio.Future[None] | None = None

    def __init__(self, asker: Asker, on_progress: OnProgress | None) -> None:
        self.asker, self.on_progress = asker, on_progress
        self._inbox = LoopInbox.of_running_loop()
        self._context = copy_context()
        self._future: asyncio.Future[Outcome] = self._inbox.loop.create_future()

    def _put(self, outcome: Outcome) -> None:
        self._inbox.put(self._settle, outcome)

    def _has_progress(self) -> None:
        if not self._will_report:
            # Before it is put: what comes from now on is reported with it.
            self._will_report = True
            self._inbox.put(self._report_all, None)

    def _report_all(self, _: object = None) -> None:
        self._will_report = False
        super()._report_all()

    @property
    def line(self) -> object:
        return self._inbox

    def call_back(self) -> None:
        if not self._inbox.put(self._try_again, None):
            self._credit.abandon(self.peer, self._inbox)

    def _try_again(self, _: object) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def nested(self, call: IncomingCall) -> None:
        if not self._inbox.put(self._start, call):
            gone = Cancelled("whoever waited for the call that this one was made for is gone")
            self.asker.service.fail_aside(call, gone)

    def _start(self, call: IncomingCall) -> None:
        """Carries out a call back, in the context of the coroutine that waits."""
        self._context.copy().run(self.asker.service.start, call)

    def _settle(self, outcome: Outcome) -> None:
        # Cancelling the coroutine has cancelled the future.
        if not self._future.done():
            self._future.set_result(outcome)

    async def wait(self) -> Any:
        """Waits for the answer; decodes it in the loop's thread. Raises as :meth:`ThreadWaiter.wait`."""
        assert self.channel is not None
        if self._held is not None:
            await self._send_when_there_is_credit()
        reader = self._inbox.reader(self.channel.stream)
        if reader is not None:
            reader.begin_waiting()
            try:
                return await self._wait()
            finally:
                reader.end_waiting()
        self.channel.lead.attend(self)
        try:
            return await self._wait()
        finally:
            self.channel.lead.dismiss(self)

    async def _send_when_there_is_credit(self) -> None:
        """Returns without having sent where it was cancelled, as the future tells."""
        assert self.channel is not None
        lead, wait = self.channel.lead, standard("asyncio").wait
        lead.attend(self)
        try:
            while not self._future.done():
                # Before looking: what comes from here on is for this one.
                self._turn = self._inbox.loop.create_future()
                if self.deadline is not None and self.deadline.seconds_left() <= 0:
                    raise self.deadline.exceeded()
                if self._send_held():
                    return
                timeout = None if self.deadline is None else self.deadline.seconds_left()
                await wait([self._turn, self._future], timeout=timeout, return_when="FIRST_COMPLETED")
        finally:
            self._turn = None
            lead.dismiss(self)

    async def _wait(self) -> Any:
        deadline = self.deadline
        if deadline is not None:
            await standard("asyncio").wait([self._future], timeout=deadline.seconds_left())
            if not self._future.done():
                raise deadline.exceeded()
        return self._conclude(await self._future)
