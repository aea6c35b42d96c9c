"""The worker's main thread: carries out the calls that it is given, one at a time and in order.

Synchronous nodes run straight off the stream: the thread that runs them reads while it has nothing to run. The first
coroutine that a node returns turns the main thread into an event loop for good: coroutines then take turns where they
await, and synchronous nodes run between them, as in ComfyUI.
A pack without coroutines never pays for asyncio.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from threading import get_ident
from typing import Any, Protocol

from comfy_airlock.calls.loops import LoopInbox
from comfy_airlock.calls.service import Service
from comfy_airlock.wire.express import Take
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Seat, Stream
from comfy_airlock.wire.optional import standard

Action = Callable[[], object]


class Calls(Stream, Protocol):
    """Where calls come from."""

    @property
    def take(self) -> Take:
        """As :attr:`comfy_airlock.runtime.streams.Streams.take`."""
        ...


class Executor:
    """The queue of calls, and the thread that works it off."""

    def __init__(self, service: Service, stream: Calls) -> None:
        """
        Args:
            service: carries each call out.
            stream: where calls come from. It is read while there is nothing to run.
        """
        self._service = service
        self._stream = stream
        self._seat = Seat()
        self._queue: deque[IncomingCall | Action | None] = deque()
        self._loop: Any = None
        self._inbox: LoopInbox | None = None
        self._lag = 0.0
        # Since when it is to say how late it is.
        self._lag_asked: float | None = None

    def submit(self, item: IncomingCall | Action | None) -> None:
        """Queues a call, or something else to be done between calls. Called on the thread that reads."""
        self._queue.append(item)
        self._seat.call_back()
        if self._inbox is not None:
            # In vain where the loop was closed: this process is about to end.
            self._inbox.put(self._drain, None)

    def submit_next(self, action: Action) -> None:
        """Queues what is to be done before any other call. Called on the thread that runs them."""
        self._queue.appendleft(action)
        if self._loop is not None:
            self._loop.call_soon(self._drain)

    def stop(self) -> None:
        """Makes :meth:`run` return once the call that it is at is done. Called on the thread that reads."""
        self.submit(None)

    def run(self) -> None:
        """Works off calls until :meth:`stop`."""
        queue, seat, stream, begin, turn = self._queue, self._seat, self._stream, self._service.begin, [get_ident()]
        while True:
            # Where calls follow one another, the next is what this thread reads next: whatever is queued by now came
            # after it, as what came before has taken care of the seat, and nothing is read then.
            call = None if queue else stream.take(seat, turn)
            if call is None:
                item = self._next()
                if item is None:
                    return
                if not isinstance(item, IncomingCall):
                    item()
                    continue
                call = item
            result = begin(call)
            if result is not None:
                self._run_loop(call, result)
                return

    def _next(self) -> IncomingCall | Action | None:
        """What is next in the queue, once there is something."""
        while True:
            # Before looking: what comes from here on calls again.
            self._seat.taken_care_of = False
            if self._queue:
                return self._queue.popleft()
            self._stream.lead.wait(self._seat)

    def _run_loop(self, call: IncomingCall, first: Awaitable[Any]) -> None:
        asyncio = standard("asyncio")
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        inbox = LoopInbox.of(loop)
        # From here on the loop is told of what is queued.
        self._loop, self._inbox = loop, inbox
        # This thread waits in the loop from now on, which reads like this thread did.
        reader = inbox.reader(self._stream)
        if reader is None:
            self._stream.lead.attend(self)
        else:
            reader.begin_waiting()
        self._service.go_on(call, first, loop)
        # What was queued before whoever reads knew of the loop.
        loop.call_soon(self._drain)
        try:
            loop.run_forever()
        finally:
            inbox.close()
            loop.close()

    def _drain(self, _: object = None) -> None:
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, IncomingCall):
                # Each in a context of its own, as the tasks of a loop are.
                Context().run(self._service.start, item)
            elif item is None:
                self._loop.stop()
                return
            else:
                item()
        if self._inbox is not None and not self._service.has_tasks:
            self._inbox.look_soon()

    def loop_lag_ms(self) -> float | None:
        """How late the event loop was when it was last looked at, or is by now; None where there is none.

        Looks at it again, for the next time. Called on the thread that reads.
        """
        loop = self._loop
        if loop is None:
            return None
        asked = self._lag_asked
        if asked is not None:
            return max(self._lag, time.monotonic() - asked) * 1000
        self._lag_asked = asked = time.monotonic()
        try:
            loop.call_soon_threadsafe(self._loop_ran, asked)
        except RuntimeError:
            pass  # The loop was closed: this process is about to end.
        return self._lag * 1000

    def _loop_ran(self, asked: float) -> None:
        self._lag = time.monotonic() - asked
        self._lag_asked = None

    def idle(self) -> Awaitable[None] | None:
        """A method that is answered when all calls that came before it are."""
        tasks = self._service.tasks
        return self._until_done(tasks) if tasks else None

    async def _until_done(self, tasks: list[Any]) -> None:
        await standard("asyncio").wait(tasks)
