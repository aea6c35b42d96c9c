"""Threads for what a pack asks of the host while nobody waits for it: calls without a parent, and events.

Each pack has its own, so one whose calls block holds up nobody else's: as many as there are calls at once, within a
bound; each ends after a while without work. Events are handled one after the other, in the order in which they came.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from comfy_airlock.wire.limits import SERVANTS_MAX
from comfy_airlock.wire.optional import standard

Action = Callable[[], object]

_IDLE_SECONDS_MAX: Final = 2.0


def _carry_out(action: Action) -> None:
    """Whatever it raises, be it SystemExit, has been told to whom it concerns, and is the end of nothing here."""
    try:
        action()
    except BaseException:  # noqa: BLE001
        standard("logging").getLogger("comfy_airlock").exception("what a pack asked for failed")


class Servants:
    """The threads of one pack."""

    def __init__(self) -> None:
        self._actions: SimpleQueue[Action | None] = SimpleQueue()
        self._mutex = threading.Lock()
        self._threads = 0
        self._owed = 0

    def submit(self, action: Action) -> None:
        """Has a thread carry this out. It may block; its exceptions are the thread's."""
        with self._mutex:
            self._owed += 1
            needs_thread = self._owed > self._threads and self._threads < SERVANTS_MAX
            self._threads += needs_thread
        self._actions.put(action)
        if needs_thread:
            threading.Thread(target=self._serve, name="airlock-servant", daemon=True).start()

    def close(self) -> None:
        """Ends the threads, each once it is done with what it is at."""
        with self._mutex:
            for _ in range(self._threads):
                self._actions.put(None)

    def _serve(self) -> None:
        while True:
            try:
                action = self._actions.get(timeout=_IDLE_SECONDS_MAX)
            except Empty:
                with self._mutex:
                    # One that was submitted in this moment counts on as many threads as there are.
                    if self._owed < self._threads:
                        self._threads -= 1
                        return
                continue
            if action is None:
                return
            try:
                _carry_out(action)
            finally:
                del action
                with self._mutex:
                    self._owed -= 1


class InOrder:
    """Carries out actions one after the other, on whichever servant is free."""

    def __init__(self, servants: Servants) -> None:
        self._servants = servants
        self._mutex = threading.Lock()
        self._actions: deque[Action] = deque()
        self._is_served = False

    def submit(self, action: Action) -> None:
        with self._mutex:
            self._actions.append(action)
            if self._is_served:
                return
            self._is_served = True
        self._servants.submit(self._serve)

    def _serve(self) -> None:
        while True:
            with self._mutex:
                if not self._actions:
                    self._is_served = False
                    return
                action = self._actions.popleft()
            _carry_out(action)
