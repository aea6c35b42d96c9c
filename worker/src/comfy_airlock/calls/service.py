"""Carries out the calls that the other side makes here, and answers each: on whichever thread or loop it is told to.

What runs meanwhile finds its call in :data:`comfy_airlock.calls.context.current_call`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol

from comfy_airlock.calls.arrays import Arrays
from comfy_airlock.calls.context import current_call
from comfy_airlock.calls.inference import InferenceMode
from comfy_airlock.calls.loops import LoopInbox
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, BadRequest, Cancelled
from comfy_airlock.wire.exceptions import text_of
from comfy_airlock.wire.frame import ERROR, RESULT
from comfy_airlock.wire.incoming import IncomingCall, Source
from comfy_airlock.wire.optional import standard
from comfy_airlock.wire.reference import ReferenceTable

if TYPE_CHECKING:
    from comfy_airlock.calls.load import Load

Method = Callable[..., Any]
_Carried = Callable[[list[Any], dict[str, Any]], Any]


class Whole(NamedTuple):
    """A method that is given its arguments and its keywords as they came, which takes fewer steps than unpacking."""

    function: _Carried


Methods = Mapping[str, Method | Whole]


def _carried(method: Method | Whole) -> _Carried:
    if isinstance(method, Whole):
        return method.function
    return lambda args, keywords: method(*args, **keywords)


_MODULES: Final = sys.modules
#: Where a traceback starts that is of interest to whoever wrote the function.
_OWN_PACKAGES: Final = ("comfy_airlock.calls", "comfy_airlock.runtime")


class Shipper(Protocol):
    """Whose messages these are: :class:`comfy_airlock.calls.pair.Pair`."""

    @property
    def references(self) -> ReferenceTable: ...

    @property
    def arrays(self) -> Arrays: ...

    def settle(self, channel: Source, /) -> Load | None: ...


class Service:
    """What one other side can call here."""

    def __init__(
        self,
        codec: Codec,
        shipper: Shipper,
        methods: Methods,
        pack: str | None = None,
        inference: InferenceMode | None = None,
    ) -> None:
        """
        Args:
            codec, shipper: of the pair that calls come from.
            methods: what can be called, by name. A method may return an awaitable.
            pack: the pack that this process runs, for errors.
            inference: entered before arguments are decoded, on the thread that will run the method.
        """
        self._codec = codec
        self._encode, self._decode = codec.encode, codec.decode
        self._shipper = shipper
        self._references, self._arrays = shipper.references, shipper.arrays
        self._methods: dict[str, _Carried] = {}
        self.offer(methods)
        self._pack = pack
        self._inference = inference
        self._tasks: set[Any] = set()
        # Threads whose event loops a call keeps from running all else: it is carried out there.
        self._busy_threads: set[int] = set()

    def offer(self, methods: Methods) -> None:
        """Lets these be called, too."""
        self._methods.update((name, _carried(each)) for name, each in methods.items())

    def begin(self, call: IncomingCall) -> Awaitable[Any] | None:
        """Runs a call as far as it goes without waiting. Returns what is left to be awaited, by :meth:`finish`."""
        if call.is_cancelled:
            self.fail(call, Cancelled("the call was cancelled before it ran"))
            return None
        call.service = self
        call.outer = current_call.get()
        token = current_call.set(call)
        try:
            if "torch" in _MODULES and self._inference is not None:
                self._inference.enter()
            # Be it in vain: what was read before that fails is counted as received.
            call.has_references = False
            name, args, keywords = self._decode(call.body)
            if call.size:
                call.channel.decoded(call)
            result = (self._methods.get(name) or self._unknown(name))(args, keywords)
            if type(result) is tuple or not hasattr(result, "__await__"):
                body = self._encode(result)
                if self._references.unsettled or self._arrays.unsettled:
                    # What nobody here looks at any more is sent as it is.
                    result = None
                    self._answer(call, body)
                else:
                    # Most results hold none, and then this is all that it costs.
                    call.channel.answer_plain(call, body)
                return None
        except Exception as error:  # noqa: BLE001 - whatever a method raises is its caller's.
            self.fail(call, error)
            return None
        except BaseException as error:
            # It ends the process of a worker, and its callers are told of that. In a host it is what a function raised.
            if self._pack is None:
                self.fail(call, error)
            raise
        finally:
            current_call.reset(token)
        awaitable: Awaitable[Any] = result
        return awaitable

    def _answer(self, call: IncomingCall, body: bytes) -> None:
        load = self._shipper.settle(call.channel)
        is_sent = False
        if load is not None:
            # Before it is sent: it is for the process that asked, and no other.
            load.settled()
        try:
            is_sent = call.channel.answer(call, RESULT, body, load and load.cargo)
        finally:
            if load is not None and not is_sent:
                load.revert()

    def _unknown(self, name: object) -> NoReturn:
        whose = "a host" if self._pack is None else "a worker"
        raise BadRequest(f"{whose} has no method {name!r}", pack=self._pack)

    def run(self, call: IncomingCall) -> None:
        """Carries out a call to its end on this thread."""
        result = self.begin(call)
        if result is None:
            return
        asyncio = standard("asyncio")
        if asyncio._get_running_loop() is None:
            asyncio.run(self.finish(call, result))
        else:
            # This thread's loop is at work already, below the call that is waited for here: it can't run another.
            thread = threading.Thread(target=lambda: asyncio.run(self.finish(call, result)), name="airlock-coroutine")
            thread.start()
            thread.join()

    def start(self, call: IncomingCall) -> None:
        """Carries out a call on the event loop that runs in this thread."""
        call.is_on_loop = True
        thread = threading.get_ident()
        self._busy_threads.add(thread)
        try:
            result = self.begin(call)
        finally:
            self._busy_threads.discard(thread)
        if result is not None:
            self.go_on(call, result, standard("asyncio").get_running_loop())

    def go_on(self, call: IncomingCall, result: Awaitable[Any], loop: Any) -> None:
        """Finishes a call that was begun, on this thread's event loop."""
        task = loop.create_task(self.finish(call, result))
        # The loop itself holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: Any) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            LoopInbox.of_running_loop().look_soon()

    @property
    def has_tasks(self) -> bool:
        """Whether something is being finished."""
        return bool(self._tasks)

    @property
    def tasks(self) -> list[Any]:
        """What is being finished."""
        return list(self._tasks)

    async def finish(self, call: IncomingCall, result: Awaitable[Any]) -> None:
        """Awaits what :meth:`begin` left, and answers. Cancelled, once, when the call is."""
        asyncio = standard("asyncio")
        current_call.set(call)
        call.is_on_loop = True
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        thread = threading.get_ident()
        call.on_cancel(task, lambda: self._cancel(call, thread, loop, task))
        try:
            self._answer(call, self._codec.encode(await result))
        except Exception as error:  # noqa: BLE001 - as in begin.
            self.fail(call, error)
        except asyncio.CancelledError:
            self.fail(call, Cancelled("the call was cancelled"))
        finally:
            call.off_cancel(task)

    def _cancel(self, call: IncomingCall, thread: int, loop: Any, task: Any) -> None:
        """Cancels the task of a call. Called on the thread that reads."""
        if thread in self._busy_threads:
            # The task gets its turn when that call is done: nobody is to be ended for how long it takes.
            self.fail_aside(call, Cancelled("the call was cancelled"))
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # The loop was closed: this process is about to end.

    def fail(self, call: IncomingCall, error: BaseException) -> None:
        """Answers a call with an error."""
        try:
            call.channel.answer(call, ERROR, self._error_body(error))
        except AirlockError as failure:
            # What the exception holds is larger than a frame: the caller is told that, and gets no exception.
            call.channel.answer(call, ERROR, self._error_body(failure))
        except Exception as failure:  # noqa: BLE001 - an exception's own code may raise when it is looked at.
            said = f"{type(error).__qualname__} was raised, and {type(failure).__qualname__} when it was looked at"
            call.channel.answer(call, ERROR, self._error_body(RuntimeError(said)))

    def fail_aside(self, call: IncomingCall, error: AirlockError) -> None:
        """As :meth:`fail`, for the thread that reads."""
        call.channel.fail_aside(call, self._error_body(error))

    def _error_body(self, error: BaseException) -> bytes:
        whose = {} if self._pack is None else {"pack": self._pack}
        if isinstance(error, AirlockError):
            return self._codec.encode({**whose, **error.to_wire()})
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals.get("__package__") in _OWN_PACKAGES:
            traceback = traceback.tb_next
        shown = error.with_traceback(traceback or error.__traceback__)
        where = "" if self._pack is None else f"pack {self._pack}: "
        message = f"{where}{type(error).__qualname__}: {text_of(error)}"
        return self._codec.encode_error({"code": "remote_exception", "message": message, **whose}, shown)

    def report(self, call: IncomingCall, value: float, total: float | None, message: str) -> None:
        """Tells a call's caller how far it is."""
        said = {"pack": self._pack or "", "stage": "running", "message": message, "value": value}
        call.progress(self._codec.encode(said if total is None else {**said, "total": total}))
