"""What the thread that reads has done elsewhere, as it may take long: in order, by a thread that is there meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Action = Callable[[], object]


class Aside:
    """A queue of actions, and a daemon thread as long as there are any."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        # None where no thread works it off.
        self._actions: deque[Action] | None = None

    def submit(self, action: Action) -> None:
        """Has something done. Called on any thread."""
        with self._mutex:
            if self._actions is not None:
                self._actions.append(action)
                return
            self._actions = deque([action])
        threading.Thread(target=self._run, name="airlock-aside", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._mutex:
                if not self._actions:
                    self._actions = None
                    return
                action = self._actions.popleft()
            action()
