"""Stand-ins: objects of another process as this one sees them. Using one is a call to where the object lives.

A stand-in is a thread's to use or a coroutine's: what blocks has a twin that is awaited (``acall``, ``async for``).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Protocol

from comfy_airlock.wire.errors import ReferenceGone

ENDED: Final = "the process that it lived in has ended"
COLLECTED: Final = "nothing held it but a cycle of references through it, which was broken"
"""Why a stand-in's object is gone."""

_BATCH: Final = 256
"""Items that an iterator is asked for at once; its owner sends those that are ready."""


class Caller(Protocol):
    """Who carries calls to where the objects live: :class:`comfy_airlock.calls.pair.Pair`."""

    @property
    def name(self) -> str | None: ...

    def call(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any], /) -> Any: ...

    async def acall(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any], /) -> Any: ...

    def may_discard(self) -> None:
        """A stand-in is about to be made, which may be discarded later."""

    def entangled(self) -> None:
        """Each side holds something of the other's now: there may be a cycle some day."""

    def discard(self, number: int, receipts: int, /) -> None:
        """A stand-in is garbage. Called by finalizers: in any thread, and inside locks; takes none."""


class Handle:
    """What a stand-in stands for. Ends with it.

    Attributes:
        number, kind: what the owner knows it by.
        type: its type there, ``module:qualified.name``.
        receipts: how often the reference was received.
        gone_because: why it can't be used any more; None as long as it can.
    """

    __slots__ = ("_process", "caller", "gone_because", "kind", "number", "receipts", "type")

    def __init__(self, caller: Caller, kind: str, number: int, described: str) -> None:
        self.caller = caller
        self.kind = kind
        self.number = number
        self.type = described
        self.receipts = 0
        self.gone_because: str | None = None
        self._process = os.getpid()

    def __del__(self) -> None:
        # A forked child's copy is nobody's receipt.
        if self.gone_because is None and self._process == os.getpid():
            self.caller.discard(self.number, self.receipts)

    def check(self) -> None:
        """Raises ReferenceGone where the object is gone."""
        if self.gone_because is not None:
            raise ReferenceGone(
                f"{self.type} is gone: {self.gone_because}",
                pack=self.caller.name,
                hint="have it made again",
            )

    def call(self, method: str, *args: Any, **keywords: Any) -> Any:
        """Calls one of PROTOCOL.md's methods of a reference."""
        self.check()
        return self.caller.call(method, (self.number, *args), keywords)

    async def acall(self, method: str, *args: Any, **keywords: Any) -> Any:
        """As :meth:`call`, in a coroutine."""
        self.check()
        return await self.caller.acall(method, (self.number, *args), keywords)


class Remote:
    """A stand-in of any kind. All that it has itself begins with an underscore: other names are the object's own."""

    __slots__ = ("__weakref__", "_handle")

    def __init__(self, handle: Handle) -> None:
        object.__setattr__(self, "_handle", handle)

    def __repr__(self) -> str:
        handle = self._handle
        where = "another process" if handle.caller.name is None else f"pack {handle.caller.name}"
        return f"<{type(self).__name__} {handle.type} in {where}{'' if handle.gone_because is None else ', gone'}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} can't be copied or pickled: pass it on as it is")


class RemoteFunction(Remote):
    """A function of another process."""

    __slots__ = ()

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Calls it, and blocks for what it returns, or raises what it raised."""
        return self._handle.call("ref_call", *args, **keywords)

    async def acall(self, *args: Any, **keywords: Any) -> Any:
        """As calling it, in a coroutine."""
        return await self._handle.acall("ref_call", *args, **keywords)


class RemoteMethod:
    """A method of an object in another process."""

    __slots__ = ("_handle", "_name", "_self")

    def __init__(self, of: RemoteObject, handle: Handle, name: str) -> None:
        # Keeps the object while a method of it is held.
        self._self = of
        self._handle = handle
        self._name = name

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Calls it, and blocks for what it returns, or raises what it raised."""
        return self._handle.call("ref_method", self._name, *args, **keywords)

    async def acall(self, *args: Any, **keywords: Any) -> Any:
        """As calling it, in a coroutine."""
        return await self._handle.acall("ref_method", self._name, *args, **keywords)


class RemoteObject(Remote):
    """An object of another process. Its public attributes are read there, its public methods called there.

    Passed on, it stays where it is; passed back to its own process, it is the object itself.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r} here")
        is_method, value = self._handle.call("ref_get", name)
        return RemoteMethod(self, self._handle, name) if is_method else value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"attribute {name!r} of {self!r} can only be set in its own process")


class RemoteIterator(Remote):
    """An iterator or a generator of another process, sync or async there; iterated over either way here."""

    __slots__ = ("_has_ended", "_ready")

    def __init__(self, handle: Handle) -> None:
        super().__init__(handle)
        self._ready: deque[Any] = deque()
        self._has_ended = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while not self._ready:
            if self._has_ended:
                raise StopIteration
            self._take(self._handle.call("ref_take", _BATCH))
        return self._ready.popleft()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._has_ended:
                raise StopAsyncIteration
            self._take(await self._handle.acall("ref_take", _BATCH))
        return self._ready.popleft()

    def _take(self, answer: list[Any]) -> None:
        items, self._has_ended = answer
        self._ready.extend(items)

    def close(self) -> None:
        """Ends it: a generator's ``finally`` runs there. What was taken and not yet looked at is lost."""
        if self._close():
            self._handle.call("ref_close")

    async def aclose(self) -> None:
        """As :meth:`close`, in a coroutine."""
        if self._close():
            await self._handle.acall("ref_close")

    def _close(self) -> bool:
        self._ready.clear()
        was_open, self._has_ended = not self._has_ended, True
        return was_open and self._handle.gone_because is None


_CLASSES: Final[dict[str, type[Remote]]] = {
    "function": RemoteFunction,
    "iterator": RemoteIterator,
    "async_iterator": RemoteIterator,
    "object": RemoteObject,
}


def make_stand_in(handle: Handle) -> Remote:
    """The stand-in for what a handle names."""
    return _CLASSES[handle.kind](handle)


def handle_of(stand_in: Remote) -> Handle:
    """What a stand-in stands for."""
    return stand_in._handle  # pyright: ignore[reportPrivateUsage] - every other name is the object's own.


class Revealed:
    """Marks an object for the other side to use; see :func:`remote`."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def remote(value: Any) -> Any:
    """Lets a pack use an object that is passed to it: read its public attributes and call its public methods.

    Functions can be called and iterators taken from without this. Any other object that a host passes to a pack can
    only be held there and given back. What a pack passes to its host is the host's to use in any case.

    Args:
        value: the object. The result is to be passed in its place, in the arguments of a call or what is returned.
    """
    return Revealed(value)
