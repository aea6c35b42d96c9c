"""Calls from code that can't await them, such as a progress hook on the thread of a loop that stands still.

Each is sent from a loop of the outbox's own, which is started by the first; its future, where there is one, is settled
on the loop that the request names. Nobody hears of a failure else, as nobody waits.

Calls of one method take their turns, each once the one before has been answered: the host answers calls on several
threads, and progress would go back and forth otherwise. Those of different methods don't wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

Send = Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]


class Outbox:
    """Takes requests as dictionaries: kind, object_id, method, args, kwargs, calling_loop and future."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._mutex = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        # By object and method, the last that was asked for. Used on the loop alone.
        self._latest: dict[tuple[Any, Any], asyncio.Event] = {}

    def put(self, request: dict[str, Any] | None) -> None:
        """Sends a request, in order with those of its method; None, by which users end such a queue, is passed over."""
        if request is None:
            return
        with self._mutex:  # So that close() comes before a request or after it, never while it is handed over.
            if self._is_closed:
                raise RuntimeError("the outbox is closed: its worker was stopped")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="airlock-outbox", daemon=True).start()
            self._loop.call_soon_threadsafe(self._begin, self._loop, request)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            under_way = asyncio.all_tasks(loop)
            for task in under_way:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*under_way, return_exceptions=True))
        finally:
            loop.close()

    def _begin(self, loop: asyncio.AbstractEventLoop, request: dict[str, Any]) -> None:
        # Settled as the task ends, not by the task: one that is cancelled before its first step never runs.
        task = loop.create_task(self._carry_out(request))
        task.add_done_callback(lambda task: _settle(request.get("calling_loop"), request.get("future"), task))

    async def _carry_out(self, request: dict[str, Any]) -> Any:
        of = (request.get("object_id"), request.get("method"))
        before, answered = self._latest.get(of), asyncio.Event()
        self._latest[of] = answered
        try:
            if before is not None:
                await before.wait()
            return await self._send(request)
        finally:
            answered.set()
            if self._latest.get(of) is answered:
                del self._latest[of]

    def close(self) -> None:
        """Ends its loop."""
        with self._mutex:
            self._is_closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)


def _settle(loop: Any, future: Any, task: asyncio.Task[Any]) -> None:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is not None:
        logging.getLogger(__name__).debug("a call of the outbox's failed", exc_info=error)
    if loop is None or future is None:
        return

    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(task.result())
        else:
            future.set_exception(error)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # The loop is closed: nobody waits there any more.
