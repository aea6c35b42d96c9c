"""How a caller waits for its answer: a thread in its seat, a coroutine on a future. Twins of one interface."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, DeadlineExceeded
from comfy_airlock.wire.exceptions import rebuild
from comfy_airlock.wire.frame import Frame
from comfy_airlock.wire.lead import Lead, Seat

OnProgress = Callable[[Any], None]

Outcome = Frame | AirlockError
"""The frame that answered a call, or why none will come."""


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
            hint="give it more time; a synchronous node goes on running, and the next call waits for it",
        )


class _Call:
    """What the two ways of waiting share: progress goes to its listener, an outcome becomes a value or is raised."""

    def __init__(self, codec: Codec, on_progress: OnProgress | None) -> None:
        self._codec = codec
        self._on_progress = on_progress
        self._listener_error: Exception | None = None

    def report(self, body: bytes | memoryview) -> None:
        """Tells the listener. What it raises is its own call's, not the connection's or the event loop's: kept."""
        if self._on_progress is None:
            return
        try:
            self._on_progress(self._codec.decode(body))
        except Exception as error:  # noqa: BLE001 - a listener may do anything.
            self._listener_error = self._listener_error or error

    def conclude(self, outcome: Outcome) -> Any:
        """The value that the call returned.

        Raises:
            Exception: the first that the progress listener raised, else whatever the node raised.
            AirlockError: the call did not come to an end.
        """
        if self._listener_error is not None:
            raise self._listener_error
        if isinstance(outcome, AirlockError):
            raise outcome
        body = self._codec.decode(outcome.body)
        if outcome.kind == frames.RESULT:
            return body
        remote = body.get("exception") if isinstance(body, dict) else None
        if isinstance(remote, dict):
            raise rebuild(remote)
        raise AirlockError.from_wire(body)


class ThreadWaiter:
    """A thread that waits for one answer, and reads for all others meanwhile where no other thread does."""

    def __init__(self, codec: Codec, on_progress: OnProgress | None) -> None:
        self._call = _Call(codec, on_progress)
        self._seat = Seat()
        self._outcome: Outcome | None = None
        self._progress: deque[bytes | memoryview] = deque()

    def progressed(self, body: bytes | memoryview) -> None:
        self._progress.append(body)
        self._seat.call_back()

    def answered(self, frame: Frame) -> None:
        self._settle(frame)

    def failed(self, error: AirlockError) -> None:
        self._settle(error)

    def _settle(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._seat.call_back()

    def wait(self, lead: Lead, deadline: Deadline | None = None) -> Any:
        """Blocks for the answer, decodes it and tells the listener in this thread.

        Raises what the listener raised, too, once the answer has come; DeadlineExceeded where it doesn't in time.
        """
        while True:
            # Before looking: what comes from here on calls again. The outcome first: no progress comes after it.
            self._seat.taken_care_of = False
            outcome = self._outcome
            while self._progress:
                self._call.report(self._progress.popleft())
            if outcome is not None:
                return self._call.conclude(outcome)
            if deadline is None:
                lead.wait(self._seat)
            elif deadline.seconds_left() > 0:
                lead.wait(self._seat, deadline.until)
            else:
                raise deadline.exceeded()


class LoopWaiter:
    """A coroutine that waits for one answer, on the loop that it runs on."""

    def __init__(self, codec: Codec, on_progress: OnProgress | None) -> None:
        self._call = _Call(codec, on_progress)
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Outcome] = self._loop.create_future()

    def progressed(self, body: bytes | memoryview) -> None:
        self._post(self._call.report, body)

    def answered(self, frame: Frame) -> None:
        self._post(self._settle, frame)

    def failed(self, error: AirlockError) -> None:
        self._post(self._settle, error)

    def _post(self, action: Callable[[Any], None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(action, argument)
        except RuntimeError:
            pass  # The loop was closed while the call was under way: nobody waits any more.

    def _settle(self, outcome: Outcome) -> None:
        # Cancelling the coroutine has cancelled the future.
        if not self._future.done():
            self._future.set_result(outcome)

    async def wait(self, lead: Lead, deadline: Deadline | None = None) -> Any:
        """Waits for the answer; decodes it in the loop's thread. Raises as :meth:`ThreadWaiter.wait`."""
        lead.attend(self)
        try:
            if deadline is not None:
                await asyncio.wait([self._future], timeout=deadline.seconds_left())
                if not self._future.done():
                    raise deadline.exceeded()
            outcome = await self._future
        finally:
            lead.dismiss(self)
        return self._call.conclude(outcome)
