"""Tells owners of references that stand-ins are garbage.

Finalizers run in any thread, at any moment, and inside locks: they put what is to be released into a queue that may be
put into anywhere, and do nothing else. One thread of the process sends it, a moment later and several at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from queue import Empty, SimpleQueue
from typing import Final, Protocol

_GATHER_SECONDS: Final = 0.02


class Releaser(Protocol):
    """Who sends releases to one other side."""

    def release(self, receipts: dict[int, int], /) -> None: ...


class Releases:
    """The queue and its thread, which is started when a first stand-in is made."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Releaser, int, int]] = SimpleQueue()
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
        self._queue.put((releaser, number, receipts))

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            time.sleep(_GATHER_SECONDS)
            gathered: dict[Releaser, dict[int, int]] = defaultdict(lambda: defaultdict(int))
            for releaser, number, receipts in [first, *self._rest()]:
                gathered[releaser][number] += receipts
            del first
            for releaser, each in gathered.items():
                releaser.release(each)

    def _rest(self) -> list[tuple[Releaser, int, int]]:
        rest: list[tuple[Releaser, int, int]] = []
        try:
            while True:
                rest.append(self._queue.get_nowait())
        except Empty:
            return rest


process_releases: Final = Releases()
"""One per process."""
