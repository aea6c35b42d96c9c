"""How a call waits for a worker slot of its pack: a thread on an event, a coroutine on a future.

Invariant: a slot that a call was given and has not taken, because its time was up or it was cancelled, goes back.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from comfy_airlock.calls.deadline import Deadline
from comfy_airlock.calls.waiting import cancelled_with_its_cause
from comfy_airlock.host.worker_choice import ChoiceRequest
from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.optional import standard

if TYPE_CHECKING:
    import asyncio


class SlotTurn:
    """A call that waits for a slot.

    Attributes:
        slot: the one that it was given, and has not taken.
    """

    slot: int | None = None

    def settle(self, outcome: int | AirlockError) -> None:
        """There is a slot, or there is no more use for one. Called on any thread, and only the first time counts."""
        raise NotImplementedError


class ThreadTurn(SlotTurn):
    """A thread's."""

    def __init__(self) -> None:
        self._has_outcome = threading.Event()
        self._outcome: int | AirlockError | None = None

    def settle(self, outcome: int | AirlockError) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._has_outcome.set()

    def wait(self, deadline: Deadline | None) -> int:
        """Blocks until there is a slot.

        Raises:
            DeadlineExceeded: there was none in time.
            AirlockError: what else ended the wait.
        """
        self._has_outcome.wait(seconds_left(deadline))
        return _taken(self, self._outcome, deadline)


class LoopTurn(SlotTurn):
    """A coroutine's, on the event loop that runs."""

    def __init__(self) -> None:
        self._loop = standard("asyncio").get_running_loop()
        self._future: asyncio.Future[int | AirlockError] = self._loop.create_future()

    def settle(self, outcome: int | AirlockError) -> None:
        try:
            self._loop.call_soon_threadsafe(self._set, outcome)
        except RuntimeError:
            pass  # The loop was closed, and whoever waits there gives the slot back when it is garbage.

    def _set(self, outcome: int | AirlockError) -> None:
        if not self._future.done():
            self._future.set_result(outcome)

    async def wait(self, deadline: Deadline | None) -> int:
        """As :meth:`ThreadTurn.wait`, in a coroutine."""
        await standard("asyncio").wait([self._future], timeout=seconds_left(deadline))
        return _taken(self, self._future.result() if self._future.done() else None, deadline)


def seconds_left(deadline: Deadline | None) -> float | None:
    """Until a deadline; None where there is none. Raises DeadlineExceeded where it has passed."""
    if deadline is None:
        return None
    left = deadline.seconds_left()
    if left <= 0:
        raise deadline.exceeded()
    return left


def _taken(turn: SlotTurn, outcome: int | AirlockError | None, deadline: Deadline | None) -> int:
    if outcome is None:
        assert deadline is not None
        raise deadline.exceeded()
    if isinstance(outcome, AirlockError):
        raise outcome
    turn.slot = None
    return outcome


class Queue(Protocol):
    """Where turns wait: :class:`comfy_airlock.host.pool.Pool`."""

    def enqueue(self, turn: SlotTurn, request: ChoiceRequest, /) -> None: ...

    def withdraw(self, turn: SlotTurn, /) -> None: ...


class Queued:
    """As long as a call waits; what it was given and has not taken goes to the next."""

    def __init__(self, queue: Queue, turn: SlotTurn, request: ChoiceRequest, context: IncomingCall | None) -> None:
        """
        Args:
            context: the call that it is made for, whose cancel ends the wait.
        """
        self._queue = queue
        self._turn = turn
        self._request = request
        self._context = context

    def __enter__(self) -> None:
        if self._context is not None:
            self._context.on_cancel(self, self._cancelled)
        self._queue.enqueue(self._turn, self._request)

    def _cancelled(self) -> None:
        self._turn.settle(cancelled_with_its_cause())

    def __exit__(self, *_: object) -> None:
        if self._context is not None:
            self._context.off_cancel(self)
        self._queue.withdraw(self._turn)
