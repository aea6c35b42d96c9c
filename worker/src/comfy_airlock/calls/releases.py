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
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, Protocol
from weakref import ref

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


class _Deferred:
    """A release that the other side has sent, behind bodies that may bring home what it gives back."""

    def __init__(self, undecoded: Sequence[ref[Any]], action: Callable[[], None]) -> None:
        self._undecoded = undecoded
        self._action = action

    def is_ready(self) -> bool:
        """Whether it could be done, and was."""
        if any(body() is not None for body in self._undecoded):
            return False
        _do(self._action)
        return True


def _do(action: Callable[[], object]) -> None:
    """Whatever goes wrong with one release is no other's fault."""
    try:
        action()
    except Exception:  # noqa: BLE001 - a finalizer may do anything.
        standard("logging").getLogger("comfy_airlock").exception("a reference could not be released")


class Releases:
    """The queue and its thread, which is started when a first stand-in is made."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Given | _Deferred] = SimpleQueue()
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

    def defer(self, undecoded: Sequence[ref[Any]], action: Callable[[], None]) -> None:
        """Has ``action`` done once none of these bodies is there any more."""
        self.start()
        self._queue.put(_Deferred(undecoded, action))

    def _run(self) -> None:
        deferred: list[_Deferred] = []
        while True:
            gathered: dict[Releaser, dict[int, int]] = defaultdict(lambda: defaultdict(int))
            for item in self._items(_GATHER_SECONDS if deferred else None):
                if isinstance(item, _Given):
                    gathered[item.releaser][item.number] += item.receipts
                else:
                    deferred.append(item)
            for releaser, each in gathered.items():
                _do(partial(releaser.release, each))
            deferred = [each for each in deferred if not each.is_ready()]

    def _items(self, seconds: float | None) -> list[_Given | _Deferred]:
        """What comes, and what more comes within a moment; nothing where nothing comes for so many seconds."""
        items: list[_Given | _Deferred] = []
        try:
            items.append(self._queue.get(timeout=seconds))
            time.sleep(_GATHER_SECONDS)
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items


process_releases: Final = Releases()
"""One per process."""
