"""Runs the calls that a worker is given, one at a time, on the main thread.

Synchronous nodes run straight off the stream: the thread that runs them reads while it has nothing to run. The first
coroutine that a node returns turns the main thread into an event loop for good: coroutines then take turns where they
await, and synchronous nodes run between them, as in ComfyUI.
A pack without coroutines never pays for asyncio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from comfy_airlock.runtime.inference import InferenceMode
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, Cancelled, Disconnected
from comfy_airlock.wire.exceptions import text_of
from comfy_airlock.wire.frame import Frame, build_frame
from comfy_airlock.wire.lead import Seat
from comfy_airlock.wire.optional import standard

Method = Callable[..., Any]


Send = Callable[[bytes], None]
"""Sends a frame to where a call came from; called on the main thread."""


Key = tuple[Send, int]
"""What tells a call from all others: two callers may use the same number."""


class Job(NamedTuple):
    """A call, and where its answer goes."""

    frame: Frame
    send: Send
    key: Key


class Reading(Protocol):
    """Who reads what the executor is given; :class:`comfy_airlock.wire.lead.Lead` in a worker."""

    def wait(self, seat: Seat, /) -> None: ...

    def attend(self, token: object, /) -> None: ...


class Executor:
    """The queue of calls, and the thread that works it off."""

    def __init__(
        self,
        pack: str,
        codec: Codec,
        reading: Reading,
        methods: dict[str, Method],
        inference: InferenceMode | None = None,
    ) -> None:
        """
        Args:
            pack: the pack's name, for errors.
            reading: waited with while there is nothing to run.
            methods: what can be called, by name. A method may return an awaitable.
            inference: entered before each call, where torch is there.
        """
        self._pack = pack
        self._codec = codec
        self._reading = reading
        self._seat = Seat()
        self._methods = methods
        self._inference = inference or InferenceMode()
        self._queue: deque[Job | None] = deque()
        self._unanswered: set[Key] = set()
        self._cancelled: set[Key] = set()
        self._tasks: dict[Key, Any] = {}
        self._loop: Any = None

    def submit(self, frame: Frame, send: Send) -> None:
        """Takes a CALL or a CANCEL; its answer goes to ``send``. Called on the thread that reads."""
        key = send, frame.call
        if frame.kind == frames.CANCEL:
            # A cancel may cross the answer to its call.
            if key in self._unanswered:
                self._cancelled.add(key)
                self._post(self._cancel_task, key)
        else:
            # What is left of a cancel that did cross its answer is not meant for this call.
            self._cancelled.discard(key)
            self._unanswered.add(key)
            self._enqueue(Job(frame, send, key))

    def stop(self) -> None:
        """Makes :meth:`run` return once the call that it is at is done. Called on the thread that reads."""
        self._enqueue(None)

    def _enqueue(self, job: Job | None) -> None:
        self._queue.append(job)
        self._seat.call_back()
        if self._loop is not None:
            self._post(self._drain)

    def _post(self, action: Callable[..., None], *args: object) -> None:
        """Has the event loop do something, where there is one by now."""
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(action, *args)
        except RuntimeError:
            pass  # The loop was closed: this process is about to end.

    def run(self) -> None:
        """Works off calls until :meth:`stop`."""
        while True:
            job = self._next()
            if job is None:
                return
            result = self._begin(job)
            if result is not None:
                self._run_loop(job, result)
                return

    def _next(self) -> Job | None:
        while not self._queue:
            self._reading.wait(self._seat)
            # Before looking: what comes from here on calls again.
            self._seat.taken_care_of = False
        return self._queue.popleft()

    def _begin(self, job: Job) -> Awaitable[Any] | None:
        """Runs a call as far as it goes without waiting. Returns what is left to be awaited, if anything is."""
        if self._cancelled and job.key in self._cancelled:
            self._answer_error(job, Cancelled("the call was cancelled before it ran"))
            return None
        try:
            method, args, keywords = self._decode(job.frame)
            result = method(*args, **keywords)
        except Exception as error:  # noqa: BLE001 - whatever a node raises is its caller's.
            self._answer_error(job, error)
            return None
        if hasattr(result, "__await__"):
            return result  # type: ignore[no-any-return]
        self._answer(job, result)
        return None

    def _decode(self, frame: Frame) -> tuple[Method, list[Any], dict[str, Any]]:
        self._inference.enter()
        body = self._codec.decode(frame.body)
        # Decoding the first tensor is what imports torch, where the pack doesn't.
        self._inference.enter()
        name, args, keywords = body
        method = self._methods.get(name)
        if method is None:
            raise AirlockError(f"a worker has no method {name!r}", code="bad_request", pack=self._pack)
        return method, args, keywords

    def _answer(self, job: Job, result: Any) -> None:
        try:
            answer = build_frame(frames.RESULT, job.frame.peer, job.frame.call, self._codec.encode(result))
        except AirlockError as error:
            self._answer_error(job, error)
            return
        self._send_answer(job, answer)

    def _answer_error(self, job: Job, error: Exception) -> None:
        try:
            answer = build_frame(frames.ERROR, job.frame.peer, job.frame.call, self._error_body(error))
        except AirlockError as failure:
            # What the exception holds is larger than a frame: the caller is told that, and gets no exception.
            answer = build_frame(frames.ERROR, job.frame.peer, job.frame.call, self._error_body(failure))
        self._send_answer(job, answer)

    def _send_answer(self, job: Job, answer: bytes) -> None:
        key = job.key
        self._unanswered.discard(key)
        self._cancelled.discard(key)
        try:
            job.send(answer)
        except Disconnected:
            pass  # Whoever asked is gone. Where that is the server, this process is about to end.

    def _error_body(self, error: Exception) -> bytes:
        if isinstance(error, AirlockError):
            return self._codec.encode({"pack": self._pack, **error.to_wire()})
        # Where the traceback starts is this file, which is nothing to the pack's author.
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals.get("__package__") == __package__:
            traceback = traceback.tb_next
        shown = error.with_traceback(traceback or error.__traceback__)
        message = f"pack {self._pack}: {type(error).__qualname__}: {text_of(error)}"
        return self._codec.encode_error({"code": "remote_exception", "message": message, "pack": self._pack}, shown)

    def _run_loop(self, job: Job, first: Awaitable[Any]) -> None:
        asyncio = standard("asyncio")
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        # From here on the loop is told of cancels. The task looks for those that came before.
        self._loop = loop
        # This thread waits in the loop from now on, and reads no more.
        self._reading.attend(self)
        self._start_task(job, first)
        # What was queued before whoever reads knew of the loop.
        loop.call_soon(self._drain)
        try:
            loop.run_forever()
        finally:
            loop.close()

    def _drain(self) -> None:
        while self._queue:
            job = self._queue.popleft()
            if job is None:
                self._loop.stop()
                return
            result = self._begin(job)
            if result is not None:
                self._start_task(job, result)

    def idle(self) -> Awaitable[None] | None:
        """A method that is answered when all calls that came before it are."""
        return self._until_idle(list(self._tasks.values())) if self._tasks else None

    async def _until_idle(self, tasks: list[Any]) -> None:
        await standard("asyncio").wait(tasks)

    def _start_task(self, job: Job, result: Awaitable[Any]) -> None:
        self._loop.create_task(self._finish(job, result))

    def _cancel_task(self, key: Key) -> None:
        """Carries out a cancel that has come, once: a second time would interrupt the coroutine's cleaning up."""
        task = self._tasks.get(key)
        if task is not None and key in self._cancelled:
            self._cancelled.discard(key)
            task.cancel()

    async def _finish(self, job: Job, result: Awaitable[Any]) -> None:
        asyncio = standard("asyncio")
        # Not as it is made: a task that is cancelled before it runs never does, and its call would get no answer.
        self._tasks[job.key] = asyncio.current_task()
        self._cancel_task(job.key)
        try:
            self._answer(job, await result)
        except Exception as error:  # noqa: BLE001 - as in _begin.
            self._answer_error(job, error)
        except asyncio.CancelledError:
            self._answer_error(job, Cancelled("the call was cancelled"))
        finally:
            del self._tasks[job.key]
