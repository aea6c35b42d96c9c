"""Tells owners of references that stand-ins are garbage.

Finalizers run in any thread, at any moment, and inside locks: they put what is to be released into a queue that may be
put into anywhere, and do nothing else. One thread of the process sends it, a moment later and several at once. The same
thread does what other sides release and what has to wait.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, Protocol
from weakref import WeakMethod

from comfy_airlock.wire.optional import standard

_GATHER_SECONDS: Final = 0.02


class Releaser(Protocol):
    """Who sends releases to one other side."""

    def release(self, receipts: dict[int, int], /) -> None: ...


class _Given(NamedTuple):
    """A stand-in that is garbage."""

    releaser: Releaser
    number: int
    receipts: int


class _Poke:
    """Something that is to be done soon; several times is once."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action


class _Later:
    """Something that is to be done at a time of the monotonic clock, if whose it is is still there."""

    def __init__(self, due: float, action: WeakMethod[Callable[[], None]]) -> None:
        self.due = due
        self._action = action

    def is_done(self) -> bool:
        """Whether it was due, and was done."""
        if time.monotonic() < self.due:
            return False
        action = self._action()
        if action is not None:
            _do(action)
        return True


class _Deferred:
    """A release that the other side has sent, behind bodies that may bring home what it gives back."""

    def __init__(self, may_begin: Callable[[], bool], action: Callable[[], None]) -> None:
        self._may_begin = may_begin
        self._action = action

    def is_ready(self) -> bool:
        """Whether it could be done, and was."""
        if not self._may_begin():
            return False
        _do(self._action)
        return True


def _do(action: Callable[[], object]) -> None:
    """Whatever goes wrong with one release is no other's fault."""
    try:
        action()
    except Exception:  # noqa: BLE001 - a finalizer may do anything.
        standard("logging").getLogger("comfy_airlock").exception("a reference could not be released")


def _seconds_to(later: list[_Later]) -> float | None:
    """Until the first is due; None where there is none."""
    return max(0.0, min(each.due for each in later) - time.monotonic()) if later else None


_Item = _Given | _Deferred | _Poke | _Later


class Releases:
    """The queue and its thread, which is started when a first stand-in is made."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._mutex = threading.Lock()
        self._process: int | None = None

    def start(self) -> None:
        """Sees to it that the thread runs; not for finalizers."""
        if self._process == os.getpid():
            return
        with self._mutex:
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(target=self._run, name="airlock-releases", daemon=True).start()

    def put(self, releaser: Releaser, number: int, receipts: int) -> None:
        """For finalizers."""
        self._queue.put(_Given(releaser, number, receipts))

    def poke(self, action: Callable[[], None]) -> None:
        """Has something done a moment later, once however often that is asked for. For finalizers."""
        self._queue.put(_Poke(action))

    def later(self, seconds: float, action: WeakMethod[Callable[[], None]]) -> None:
        """Has a method called after so many seconds, unless its object is garbage by then."""
        self._queue.put(_Later(time.monotonic() + seconds, action))

    def defer(self, may_begin: Callable[[], bool], action: Callable[[], None]) -> None:
        """Has ``action`` done once it may begin, which is asked again and again."""
        self.start()
        self._queue.put(_Deferred(may_begin, action))

    def _run(self) -> None:
        deferred: list[_Deferred] = []
        later: list[_Later] = []
        while True:
            poked: dict[Callable[[], None], None] = {}
            gathered: dict[Releaser, dict[int, int]] = defaultdict(lambda: defaultdict(int))
            for item in self._items(_GATHER_SECONDS if deferred else _seconds_to(later)):
                if isinstance(item, _Given):
                    gathered[item.releaser][item.number] += item.receipts
                elif isinstance(item, _Poke):
                    poked[item.action] = None
                elif isinstance(item, _Later):
                    later.append(item)
                else:
                    deferred.append(item)
            for releaser, each in gathered.items():
                _do(partial(releaser.release, each))
            for action in poked:
                _do(action)
            deferred = [each for each in deferred if not each.is_ready()]
            later = [each for each in later if not each.is_done()]

    def _items(self, seconds: float | None) -> list[_Item]:
        """What comes, and what more comes within a moment; nothing where nothing comes for so many seconds."""
        items: list[_Item] = []
        try:
            items.append(self._queue.get(timeout=seconds))
            time.sleep(_GATHER_SECONDS)
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items


process_releases: Final = Releases()
"""One per process."""
