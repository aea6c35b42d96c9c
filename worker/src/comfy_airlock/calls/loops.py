"""Event loops that wait on channels: what whoever reads has for their coroutines, and how a loop reads by itself.

A loop whose coroutines wait, or that carries out calls, watches what it is to read like any socket of its own, and
reads it where no thread does: what comes for it then takes no change of threads. Where a loop is busy, a thread that
waits, or the keeper, reads for it and wakes it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextvars import Context
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, ref

from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.optional import standard

if TYPE_CHECKING:
    import asyncio

    from comfy_airlock.wire.lead import Stream

Action = Callable[[Any], object]


class LoopInbox:
    """What there is to do for the coroutines of one event loop. The loop is woken once for all that comes at once."""

    _by_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, LoopInbox]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._items: deque[tuple[Action, object]] = deque()
        self._is_awake = False
        self._readers: dict[Stream, LoopReader] = {}

    @staticmethod
    def of_running_loop() -> LoopInbox:
        """The one of the loop that runs in this thread."""
        return LoopInbox.of(standard("asyncio").get_running_loop())

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> LoopInbox:
        """The one of this loop, which runs in this thread or is about to."""
        inbox = LoopInbox._by_loop.get(loop)
        if inbox is None:
            inbox = LoopInbox._by_loop[loop] = LoopInbox(loop)
        return inbox

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, for those that run on it."""
        loop = self._loop()
        assert loop is not None
        return loop

    def reader(self, stream: Stream) -> LoopReader | None:
        """What lets the loop read a stream; None where it can't, and others have to. On the loop's thread."""
        reader = self._readers.get(stream)
        if reader is None:
            try:
                reader = self._readers[stream] = LoopReader(self, stream)
            except (NotImplementedError, OSError):
                return None  # A loop that watches no sockets, or a channel that has ended.
        return reader

    def look_soon(self) -> None:
        """Has the loop look for what comes, before it sleeps: nothing that is known here is left to do on it.

        Only where one stream is waited for: what comes from another would have to wait.
        """
        waiting = [each for each in self._readers.values() if each.waiting]
        if len(waiting) == 1:
            waiting[0].look_soon()

    def reads_no_more(self, stream: Stream) -> None:
        """The reader of this stream is gone."""
        self._readers.pop(stream, None)

    def put(self, action: Action, argument: object) -> bool:
        """Has the loop do something; from any thread. False where it was closed: nobody waits any more."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            # What is left holds the loop, and would keep it for ever.
            self._items.clear()
            return False
        self._items.append((action, argument))
        if not self._is_awake:
            # Set before it is woken: what comes from now on is seen when it wakes.
            self._is_awake = True
            try:
                # In no context: that of whoever reads is not that of those who wait.
                loop.call_soon_threadsafe(self.empty, context=Context())
            except RuntimeError:
                self._items.clear()
                return False
        return True

    def close(self) -> None:
        """Reads nothing any more: the loop is about to be closed. On its thread."""
        for reader in list(self._readers.values()):
            reader.close()

    def begin_reading(self) -> None:
        """The loop's own thread is about to read, and to :meth:`empty` this afterwards: nobody has to wake it."""
        self._is_awake = True

    def empty(self) -> None:
        """Does all that there is. On the loop's thread."""
        # Before looking: what comes from here on wakes it again, once the loop's other tasks had their turn.
        self._is_awake = False
        items = self._items
        for _ in range(len(items)):
            action, argument = items.popleft()
            try:
                action(argument)
            except Exception as error:  # noqa: BLE001 - as the loop treats what its callbacks raise.
                self.loop.call_exception_handler({"message": "a call's callback failed", "exception": error})


class _Duplicate:
    """A stream's descriptor that is the loop's to watch: it lives as long as the loop may look at it."""

    number = -1

    def __init__(self, descriptor: int) -> None:
        self.number = os.dup(descriptor)
        held_by_this_process.add(self)

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


class LoopReader:
    """One event loop that reads one stream, while somebody on the loop waits for what comes.

    Attributes:
        waiting: how many do.
    """

    def __init__(self, inbox: LoopInbox, stream: Stream) -> None:
        """
        Raises:
            NotImplementedError: the loop watches no sockets.
            OSError: the stream is closed.
        """
        self._inbox = inbox
        self._stream = stream
        self._duplicate = _Duplicate(stream.fileno())
        self._will_look = False
        self.waiting = 0
        # In no context: this outlives the call that is under way here.
        Context().run(inbox.loop.add_reader, self._duplicate.number, self._read)

    def begin_waiting(self) -> None:
        """Somebody waits from now on: the keeper leaves the reading to this loop."""
        self.waiting += 1
        self._stream.lead.will_take()
        self._inbox.look_soon()

    def end_waiting(self) -> None:
        """Somebody waits no longer."""
        self.waiting -= 1

    def look_soon(self) -> None:
        """Looks for what comes once the loop has run what it has to run now, as threads do before they sleep."""
        if not self._will_look and self._stream.may_look():
            self._will_look = True
            self._inbox.loop.call_soon(self._look, context=Context())

    def _look(self) -> None:
        self._will_look = False
        if self.waiting:
            self._take(self._stream.look)

    def _read(self) -> None:
        # Whatever it is that came, somebody else may have taken it by now.
        self._take(self._stream.read_now)
        if self._stream.lead.has_ended or not self.waiting:
            # The loop is woken by what is for others once, and not again.
            self.close()

    def _take(self, read: Callable[[], None]) -> None:
        lead = self._stream.lead
        self._inbox.begin_reading()
        try:
            lead.will_take()
            if not lead.has_ended:
                lead.hold([get_ident()], read)
        finally:
            self._inbox.empty()

    def close(self) -> None:
        """Has the loop watch no more."""
        self._inbox.reads_no_more(self._stream)
        self._inbox.loop.remove_reader(self._duplicate.number)
        self._duplicate.close()
