"""Which of a pack's workers takes a call, by what is known of each: pure.

A worker lives in a slot, which has at most one at a time. A call goes to where an object among its inputs lives, else
to where its node keeps something, else to where the call waits that it is made for, else to the least loaded. Of a pack
whose calls get a fresh process each, no worker is given a second call, but by the first and by the third of these. Twin
of ``src/client/worker-choice.ts``; both read ``tests/vectors/worker-choice.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ChoiceRequest(NamedTuple):
    """What a call's place depends on."""

    node: str | None
    """The node that is called; None for what runs none."""
    owners: Sequence[int] = ()
    """Slots in whose workers objects live that are among the inputs."""
    within: int | None = None
    """Where the call waits for an answer that this one is made for: elsewhere it would wait behind others, who may wait
    for it."""


class _Slot:
    """Attributes:
    calls: calls under way there, of all kinds.
    is_running: whether a worker is there, as far as is known: a call starts one.
    is_spent: whether that was given a node, where each call of a node is to have a worker of its own.
    is_retiring: whether that is being ended.
    """

    __slots__ = ("calls", "is_retiring", "is_running", "is_spent")

    def __init__(self) -> None:
        self.calls = 0
        self.is_running = False
        self.is_spent = False
        self.is_retiring = False


class WorkerChoice:
    """The slots of one pack. Knows no locks: whoever has several threads sees to it that one at a time asks."""

    def __init__(self, workers: int, is_fresh: bool, sticky: frozenset[str]) -> None:
        """
        Args:
            workers: how many slots there are.
            is_fresh: whether each call of a node gets a worker that has run none.
            sticky: nodes that keep something in the worker that took their first call.
        """
        self._slots = [_Slot() for _ in range(workers)]
        self._is_fresh = is_fresh
        self._sticky = sticky
        # Where sticky nodes have what they keep.
        self._homes: dict[str, int] = {}

    def take(self, request: ChoiceRequest) -> int | None:
        """The slot that takes a call, counted there until :meth:`end`; None where it has to wait for one."""
        candidates = self._candidates(request)
        if not candidates:
            return None
        index = min(candidates, key=self._burden)
        self.begin(index)
        if request.node is not None:
            if self._is_fresh:
                self._slots[index].is_spent = True
            elif request.node in self._sticky:
                self._homes.setdefault(request.node, index)
        return index

    def _candidates(self, request: ChoiceRequest) -> Sequence[int]:
        if request.owners:
            return request.owners
        home = None if request.node is None else self._homes.get(request.node)
        if home is not None:
            return [home]
        if request.within is not None:
            return [request.within]
        every = range(len(self._slots))
        if not self._is_fresh:
            return every
        unspent = [index for index in every if not self._slots[index].is_spent]
        return every if request.node is None and not unspent else unspent

    def _burden(self, index: int) -> tuple[int, bool]:
        """The least is chosen: of equal loads, a worker that runs before one that would have to be started."""
        slot = self._slots[index]
        return slot.calls, not slot.is_running

    def begin(self, index: int) -> None:
        """A call goes to a slot that needed no choice: an object's, to where it lives."""
        slot = self._slots[index]
        slot.calls += 1
        slot.is_running = True

    def end(self, index: int, died: bool) -> None:
        """A call was answered, or never will be; ``died`` where that is because its worker did."""
        self._slots[index].calls -= 1
        if died:
            self.worker_ended(index)

    def is_running(self, index: int) -> bool:
        """Whether a worker runs there, as far as is known."""
        return self._slots[index].is_running

    def worker_ended(self, index: int) -> None:
        """A worker has ended. Calls that are under way nevertheless fail in a moment, or wait for the next one."""
        slot = self._slots[index]
        if slot.calls > 0:
            return
        slot.is_running = False
        self._homes = {node: home for node, home in self._homes.items() if home != index}

    def retire(self, index: int) -> bool:
        """Whether a slot's worker is to be ended now, as it is spent and has no call left. True once, until retired."""
        slot = self._slots[index]
        if not slot.is_spent or slot.is_retiring or slot.calls > 0:
            return False
        slot.is_retiring = True
        return True

    def retired(self, index: int) -> None:
        """A slot's spent worker is gone: another call may have the slot."""
        slot = self._slots[index]
        slot.is_spent = slot.is_retiring = False
        self.worker_ended(index)
