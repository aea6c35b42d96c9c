"""A pack's workers, where there are several, where each call is to have a process of its own, or where a node may be
called again: brings each call to one of them.

Which one is :class:`WorkerChoice`'s to say. A call is made once, and once more only where its node says that it may be,
its worker died under it, and it held no references, which may have been used. Twin of ``src/client/pool.ts``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from comfy_airlock.calls.context import current_call
from comfy_airlock.calls.deadline import CallTimeout, Deadline
from comfy_airlock.calls.event_handlers import EventHandler
from comfy_airlock.calls.pair import Pair
from comfy_airlock.calls.remote import Remote, handle_of
from comfy_airlock.calls.waiting import OnProgress
from comfy_airlock.host.lines import Lines, PackLink
from comfy_airlock.host.slot_turns import LoopTurn, Queued, SlotTurn, ThreadTurn, seconds_left
from comfy_airlock.host.worker_choice import ChoiceRequest, WorkerChoice
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError, DeadlineExceeded, WorkerDied
from comfy_airlock.wire.incoming import IncomingCall


class PackWorkers(Protocol):
    """The workers of a pack as its callers see them: the pair with its only one, or a :class:`Pool`."""

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any: ...

    async def acall(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any: ...

    def emit(self, name: str, value: Any) -> None: ...

    def on(self, name: str, handler: EventHandler | None) -> None: ...


class PoolRules(NamedTuple):
    """What a pack's manifest says of its workers, as ``open`` answers it."""

    workers: tuple[int, ...]
    is_fresh: bool
    sticky: frozenset[str]
    idempotent: frozenset[str]

    @staticmethod
    def of(opened: dict[str, Any]) -> PoolRules:
        """What the server says of a pack that was opened."""
        nodes: dict[str, dict[str, bool]] = opened["nodes"]
        sticky, idempotent = (
            frozenset(node for node, traits in nodes.items() if traits[trait]) for trait in ("sticky", "idempotent")
        )
        return PoolRules(tuple(opened["workers"]), opened["fresh_process"], sticky, idempotent)

    @property
    def need_pool(self) -> bool:
        """Whether calls have to be brought to their workers: mostly there is one, which takes them all."""
        return len(self.workers) > 1 or self.is_fresh or bool(self.idempotent)


class Pools:
    """The pools of one host."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._mutex = threading.Lock()
        self._pools: dict[int, Pool] = {}

    def workers_of(self, opened: dict[str, Any]) -> PackWorkers:
        """The workers of a pack that was opened.

        What was opened before keeps its pool, which knows what is under way, while the manifest asks for the same.
        """
        rules, name, limit = PoolRules.of(opened), opened["name"], opened.get("call_timeout")
        pair_class = SlotPair if rules.need_pool else Pair
        links = [self._lines.pack(peer, name, pair_class) for peer in rules.workers]
        for link in links:
            link.audience = opened.get("audience", 0)
            link.pair.call_timeout = None if limit is None else CallTimeout(limit["ms"] / 1000, limit["source"])
        if not rules.need_pool:
            return links[0].pair
        with self._mutex:
            pool = self._pools.get(opened["pack"])
            if pool is None or pool.rules != rules:
                pool = self._pools[opened["pack"]] = Pool(self._lines.server, links, rules, name)
            return pool


class _Place:
    """As long as a call is counted among those of a slot."""

    def __init__(self, pool: Pool, index: int) -> None:
        self._pool = pool
        self._index = index

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.end(self._index, died=kind is not None and issubclass(kind, WorkerDied))


class SlotPair(Pair):
    """The pair with the worker of one slot of a pool. The calls of its stand-ins count as load."""

    load: tuple[Pool, int] | None = None

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """As :meth:`Pair.call`."""
        if self.load is None:
            return super().call(method, args, keywords, timeout, on_progress)
        pool, index = self.load
        pool.begin(index)
        with _Place(pool, index):
            return super().call(method, args, keywords, timeout, on_progress)

    async def acall(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """As :meth:`Pair.acall`."""
        if self.load is None:
            return await super().acall(method, args, keywords, timeout, on_progress)
        pool, index = self.load
        pool.begin(index)
        with _Place(pool, index):
            return await super().acall(method, args, keywords, timeout, on_progress)


class Pool:
    """The workers of one pack. Any thread, and any event loop, may call."""

    def __init__(self, server: Pair, links: list[PackLink], rules: PoolRules, name: str) -> None:
        """
        Args:
            server: where workers are ended.
            links: one for each slot, the pack's own first.
            rules: what the manifest says.
            name: the pack's.
        """
        self.rules = rules
        self.name = name
        self._server = server
        self._links = links
        self._slot_of: dict[object, int] = {}
        self._slot_of_service: dict[object, int] = {}
        self._mutex = threading.Lock()
        self._choice = WorkerChoice(len(links), rules.is_fresh, rules.sticky)
        # In the order in which they came.
        self._waiting: dict[SlotTurn, ChoiceRequest] = {}
        for index, link in enumerate(links):
            self._watch(index, link)

    def _watch(self, index: int, link: PackLink) -> None:
        self._slot_of[link.pair] = self._slot_of_service[link.pair.service] = index
        link.hear_as(self._links[0])
        link.on_worker_ended = lambda: self._worker_ended(index)
        link.pair.on_released = lambda: self._settle(index)
        # One that was opened as the only worker, before the manifest was edited, goes on without its stand-ins counted.
        if isinstance(link.pair, SlotPair):
            link.pair.load = self, index

    def call(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Calls a method of one of the workers; see :meth:`Pair.call`."""
        call = _PoolCall(self, method, args, keywords, timeout)
        index = self._take(call.request)
        if index is None:
            index = self._turn(call)
        pair = self._links[index].pair
        with _Place(self, index):
            while True:
                try:
                    # Past what counts the calls of stand-ins: this one was counted when it was given its slot.
                    return Pair.call(pair, method, args, keywords, call.seconds_left(), on_progress)
                except WorkerDied as error:
                    if not call.may_repeat(error):
                        raise
                except DeadlineExceeded as error:
                    raise call.told(error) from None

    async def acall(
        self,
        method: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """As :meth:`call`, in a coroutine; cancelling it cancels the call."""
        call = _PoolCall(self, method, args, keywords, timeout)
        index = self._take(call.request)
        if index is None:
            index = await self._aturn(call)
        pair = self._links[index].pair
        with _Place(self, index):
            while True:
                try:
                    return await Pair.acall(pair, method, args, keywords, call.seconds_left(), on_progress)
                except WorkerDied as error:
                    if not call.may_repeat(error):
                        raise
                except DeadlineExceeded as error:
                    raise call.told(error) from None

    def owners_of(self, inputs: dict[str, Any]) -> list[int]:
        """The slots in whose workers objects live that are among the inputs, or in lists of inputs."""
        return sorted({self._slot_of[caller] for caller in _owners_in(inputs) if caller in self._slot_of})

    def slot_within(self, context: IncomingCall | None) -> int | None:
        """Where the innermost of a chain of calls waits that code runs for, of those that a worker of the pack made."""
        while context is not None:
            if not context.is_answered and context.service in self._slot_of_service:
                return self._slot_of_service[context.service]
            context = context.outer
        return None

    def _take(self, request: ChoiceRequest) -> int | None:
        with self._mutex:
            return self._choice.take(request)

    def _turn(self, call: _PoolCall) -> int:
        """Blocks until there is a slot."""
        turn = ThreadTurn()
        with Queued(self, turn, call.request, call.context):
            return turn.wait(call.deadline)

    async def _aturn(self, call: _PoolCall) -> int:
        turn = LoopTurn()
        with Queued(self, turn, call.request, call.context):
            return await turn.wait(call.deadline)

    def enqueue(self, turn: SlotTurn, request: ChoiceRequest) -> None:
        """Has a call wait, unless a slot has become free meanwhile."""
        with self._mutex:
            turn.slot = self._choice.take(request)
            if turn.slot is None:
                self._waiting[turn] = request
            else:
                turn.settle(turn.slot)

    def withdraw(self, turn: SlotTurn) -> None:
        """A call waits no longer, and has no use for a slot that it was given."""
        with self._mutex:
            self._waiting.pop(turn, None)
        if turn.slot is not None:
            self.end(turn.slot, died=False)

    def begin(self, index: int) -> None:
        """A stand-in's call begins."""
        with self._mutex:
            self._choice.begin(index)

    def end(self, index: int, died: bool) -> None:
        """A call has ended; ``died`` where that is because its worker did."""
        with self._mutex:
            self._choice.end(index, died)
        self._settle(index)

    def _worker_ended(self, index: int) -> None:
        with self._mutex:
            self._choice.worker_ended(index)

    def _settle(self, index: int) -> None:
        """Ends a spent worker that nobody needs any more: it has answered, and nothing of it is held."""
        _, held = self._links[index].pair.references.counts
        with self._mutex:
            is_over = held == 0 and self._choice.retire(index)
        if is_over:
            # Nobody waits for it, and whoever finds that it is over may be the thread that reads.
            thread = threading.Thread(target=self._retire, args=(index,), name="airlock-retiring", daemon=True)
            thread.start()

    def _retire(self, index: int) -> None:
        try:
            self._server.call("retire", (), {"pack": self._links[index].peer})
        except AirlockError:
            pass  # The pack was closed, or the connection has ended, and the worker with it.
        # What it still held of this process's is nobody's, and nothing was passed to the next one.
        self._links[index].pair.end()
        with self._mutex:
            self._choice.retired(index)
            for turn, request in list(self._waiting.items()):
                turn.slot = self._choice.take(request)
                if turn.slot is None:
                    return
                del self._waiting[turn]
                turn.settle(turn.slot)

    def emit(self, name: str, value: Any) -> None:
        """Sends an event to all workers that run."""
        with self._mutex:
            running = [link for index, link in enumerate(self._links) if self._choice.is_running(index)]
        for link in running:
            link.pair.emit(name, value)

    def on(self, name: str, handler: EventHandler | None) -> None:
        """Has the events of all workers of this name handled; see :meth:`Pair.on`."""
        self._links[0].pair.on(name, handler)


class _PoolCall:
    """One call: its time, and whether it may be made again.

    Attributes:
        request: what its place depends on.
        context: the call that it is made for.
        deadline: of all that is done for it.
    """

    def __init__(
        self, pool: Pool, method: str, args: tuple[Any, ...], keywords: dict[str, Any], timeout: float | None
    ) -> None:
        self._pool = pool
        self._sent = (args, keywords)
        self._is_repeated = False
        context = current_call.get()
        node = args[0] if method == "run" else None
        self.request = ChoiceRequest(node, pool.owners_of(keywords), pool.slot_within(context))
        while context is not None and context.is_answered:
            context = context.outer
        self.context = context
        if context is not None and context.until is not None:
            left = max(0.0, context.until - time.monotonic())
            timeout = left if timeout is None else min(left, timeout)
        self.deadline = None if timeout is None else Deadline(timeout, pool.name, None)

    def seconds_left(self) -> float | None:
        """Raises DeadlineExceeded where there are none."""
        return seconds_left(self.deadline)

    def told(self, error: DeadlineExceeded) -> DeadlineExceeded:
        """An error as the caller is told it: of the time that it gave, not of what was left of that."""
        is_own = self.deadline is not None and self.deadline.seconds_left() <= 0
        return self.deadline.exceeded() if self.deadline is not None and is_own else error

    def may_repeat(self, error: WorkerDied) -> bool:
        """Whether the call is made once more, now that its worker has died."""
        # A node's callback may have been told of the death of another pack's worker.
        is_own = error.pack is None or error.pack == self._pool.name
        if self._is_repeated or not is_own or self.request.node not in self._pool.rules.idempotent:
            return False
        self._is_repeated = True
        try:
            # Objects that have no form of their own went by reference.
            Codec().encode(self._sent)
        except AirlockError:
            return False
        return True


def _owners_in(inputs: dict[str, Any]) -> Iterator[object]:
    for value in inputs.values():
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, Remote) and handle_of(each).gone_because is None:
                yield handle_of(each).caller
