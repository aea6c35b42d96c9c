"""How a caller waits for its answer: a thread on a lock, a coroutine on a future. Twins of one interface."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.exceptions import rebuild
from comfy_airlock.wire.frame import Frame

OnProgress = Callable[[Any], None]


def answer_of(frame: Frame, codec: Codec) -> Any:
    """The value that a call returned, or the exception that it raised.

    Raises:
        AirlockError, or whatever the node raised.
    """
    body = codec.decode(frame.body)
    if frame.kind == frames.RESULT:
        return body
    remote = body.get("exception") if isinstance(body, dict) else None
    if isinstance(remote, dict):
        raise rebuild(remote)
    raise AirlockError.from_wire(body)


class ThreadWaiter:
    """A thread that waits for one answer."""

    def __init__(self, codec: Codec, on_progress: OnProgress | None) -> None:
        self._codec = codec
        self._on_progress = on_progress
        self._done = threading.Lock()
        self._done.acquire()
        self._frame: Frame | None = None
        self._error: AirlockError | None = None
        self._listener_error: Exception | None = None

    def progressed(self, body: bytes | memoryview) -> None:
        if self._on_progress is None:
            return
        try:
            self._on_progress(self._codec.decode(body))
        except Exception as error:  # noqa: BLE001 - a listener's fault is its own call's, not the connection's.
            self._listener_error = self._listener_error or error

    def answered(self, frame: Frame) -> None:
        self._frame = frame
        self._done.release()

    def failed(self, error: AirlockError) -> None:
        self._error = error
        self._done.release()

    def wait(self) -> Any:
        """Blocks for the answer; decodes it in this thread. What the progress listener raised is raised here too."""
        self._done.acquire()
        if self._listener_error is not None:
            raise self._listener_error
        if self._frame is None:
            raise self._error or AssertionError("neither answer nor error")
        return answer_of(self._frame, self._codec)


class LoopWaiter:
    """A coroutine that waits for one answer, on the loop that it runs on."""

    def __init__(self, codec: Codec, on_progress: OnProgress | None) -> None:
        self._codec = codec
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Frame] = self._loop.create_future()

    def progressed(self, body: bytes | memoryview) -> None:
        if self._on_progress is not None:
            self._post(self._report, body)

    def _report(self, body: bytes | memoryview) -> None:
        assert self._on_progress is not None
        self._on_progress(self._codec.decode(body))

    def answered(self, frame: Frame) -> None:
        self._post(self._settle, frame)

    def failed(self, error: AirlockError) -> None:
        self._post(self._settle, error)

    def _post(self, action: Callable[[Any], None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(action, argument)
        except RuntimeError:
            pass  # The loop was closed while the call was under way: nobody waits any more.

    def _settle(self, outcome: Frame | AirlockError) -> None:
        if self._future.done():
            return
        if isinstance(outcome, AirlockError):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)

    async def wait(self) -> Any:
        """Waits for the answer; decodes it in the loop's thread."""
        return answer_of(await self._future, self._codec)
