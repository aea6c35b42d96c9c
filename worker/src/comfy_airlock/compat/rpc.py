"""The other process as hosts know it: services to call there by their ids, and what it may call here.

Calls are Airlock's, one each way. Which event loop carries a call out: the one that awaits the call that it is made
for; else the one that the host named, while that runs; else one of its own, so that no loop has to be there.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from comfy_airlock.compat.crossing import arrived, going
from comfy_airlock.compat.outbox import Outbox
from comfy_airlock.compat.singletons import LocalMethodRegistry, is_remote_method


class Link(Protocol):
    """Airlock's way to the other process."""

    async def acall(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any], /) -> Any: ...

    def call(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any], /) -> Any: ...

    def stop(self) -> None:
        """Ends the worker. May be called by either side."""


CALL = "rpc_call"
CALLBACK = "rpc_callback"
STOP = "rpc_stop"
"""The methods that the two sides have for each other."""


class RemoteCaller:
    """Calls an object of the other process. It has no public names of its own: ``dir`` shows none."""

    def __init__(self, rpc: AsyncRPC, of: type[Any], object_id: str) -> None:
        self._rpc = rpc
        self._of = of
        self._object_id = object_id

    def __getattr__(self, name: str) -> Any:
        if not is_remote_method(self._of, name):
            return LocalMethodRegistry.get_instance().get_local_method(self._of, name)
        rpc, object_id = self._rpc, self._object_id

        async def method(*args: Any, **kwargs: Any) -> Any:
            return await rpc.request(CALL, (object_id, name), args, kwargs)

        method.__name__ = name
        return method

    def __repr__(self) -> str:
        return f"<RemoteCaller of {self._of.__qualname__} {self._object_id!r}>"


class AsyncRPC:
    """Calls between this process and one other, by the ids of objects.

    Attributes:
        default_loop: where calls run here that are made on behalf of none of this process's.
        callees: what the other side may call.
        callbacks: functions that it may call, by id.
        outbox: takes calls from code that can't await them.
    """

    def __init__(self, link: Link) -> None:
        self.id = str(uuid.uuid4())
        self.default_loop = _running_loop()
        self.callees: dict[str, object] = {}
        self.callbacks: dict[str, Any] = {}
        self.outbox = Outbox(self._send)
        self._link = link
        self._stopped = threading.Event()
        #: Awaited before calls from the other side are carried out.
        self.until_ready: Callable[[], Awaitable[None]] | None = None

    @property
    def methods(self) -> dict[str, Callable[..., Any]]:
        """What the other side calls here."""
        return {CALL: self._called, CALLBACK: self._called_back, STOP: self._told_to_stop}

    # What this process does with the other.

    def create_caller(self, abc: type[Any], object_id: str) -> Any:
        """What calls the object of this id there, by the coroutine methods that ``abc`` has."""
        return RemoteCaller(self, abc, object_id)

    async def request(self, method: str, whom: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the other side with arguments of this one."""
        sent = tuple([going(each, self._call_by_other) for each in args])
        keywords = {name: going(each, self._call_by_other) for name, each in kwargs.items()}
        return arrived(await self._link.acall(method, (*whom, *sent), keywords))

    def request_blocking(self, whom: tuple[str, str], args: tuple[Any, ...]) -> Any:
        """As :meth:`request`, of a method, on a thread that waits; an event loop's own may, and it stands still."""
        sent = tuple([going(each, self._call_by_other) for each in args])
        return arrived(self._link.call(CALL, (*whom, *sent), {}))

    async def call_callback(self, callback_id: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function that the other side has registered."""
        return await self.request(CALLBACK, (callback_id,), args, kwargs)

    async def _send(self, request: dict[str, Any]) -> Any:
        """Carries out a request of the outbox's."""
        args, kwargs = tuple(request.get("args") or ()), dict(request.get("kwargs") or {})
        if request["kind"] == "callback":
            return await self.request(CALLBACK, (request["object_id"],), args, kwargs)
        return await self.request(CALL, (request["object_id"], request["method"]), args, kwargs)

    # What the other may do with this process.

    def register_callee(self, object_instance: object, object_id: str) -> None:
        """Lets the other side call an object.

        Raises:
            ValueError: the id is taken.
        """
        if object_id in self.callees:
            raise ValueError(f"the object id {object_id!r} is registered already")
        self.callees[object_id] = object_instance

    def register_callback(self, func: Any) -> str:
        """Lets the other side call a function by the id that is returned, for as long as this exists."""
        callback_id = str(uuid.uuid4())
        self.callbacks[callback_id] = func
        return callback_id

    def update_event_loop(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Names the event loop for calls that are made on behalf of none; by default the one that runs here."""
        self.default_loop = loop or _running_loop() or asyncio.get_event_loop()

    def _called(self, object_id: str, method: str, /, *args: Any, **keywords: Any) -> Any:
        return self._carry_out(lambda: self._method(object_id, method), args, keywords)

    def _method(self, object_id: str, method: str) -> Callable[..., Any]:
        if object_id not in self.callees:
            raise ValueError(f"no object is registered as {object_id!r}")
        found: Callable[..., Any] = getattr(self.callees[object_id], method)
        return found

    def _called_back(self, callback_id: str, /, *args: Any, **keywords: Any) -> Any:
        return self._carry_out(lambda: self._callback(callback_id), args, keywords)

    def _callback(self, callback_id: str) -> Callable[..., Any]:
        if callback_id not in self.callbacks:
            raise ValueError(f"no callback is registered as {callback_id!r}")
        found: Callable[..., Any] = self.callbacks[callback_id]
        return found

    def _call_by_other(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The other side calls a function that it was passed."""
        return self._carry_out(lambda: function, args, keywords)

    def _carry_out(self, find: Callable[[], Callable[..., Any]], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """An awaitable of what a function returns; found when it is its turn."""
        loop = self.default_loop
        if _running_loop() is None and self.until_ready is None and loop is not None and loop.is_running():
            return _on(loop, self._result(find, args, kw))
        return self._result(find, args, kw)

    async def _result(self, find: Callable[[], Callable[..., Any]], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        if self.until_ready is not None:
            await self.until_ready()
        result = find()(*arrived(args), **arrived(kw))
        return going(await result if inspect.isawaitable(result) else result, self._call_by_other)

    # Its end.

    def run(self) -> None:
        """Nothing is left to be done: calls are taken as long as the connection lasts."""

    async def run_until_stopped(self) -> None:
        await asyncio.to_thread(self._stopped.wait)

    async def stop(self) -> None:
        """Ends the worker, from within or from its host."""
        self.shutdown()

    def shutdown(self) -> None:
        self.ended()
        self._link.stop()

    def ended(self) -> None:
        """The worker is gone, or about to be."""
        self._stopped.set()
        self.outbox.close()
        # What a loop has watched lives as long as that.
        self.default_loop = None

    def _told_to_stop(self) -> None:
        # Not while its call is being answered.
        threading.Thread(target=self.shutdown, name="airlock-stop", daemon=True).start()


async def _on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of work that another thread's loop does."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
