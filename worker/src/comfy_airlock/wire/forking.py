"""What this process holds open for itself alone: a child that it forks closes its copies at once.

A connection ends for the other side when the last copy of its descriptor is closed, so one that a forked child inherits
outlives this process for as long as the child does. Programs that are executed inherit nothing: Python's descriptors
close on exec. Knows nothing of what it closes.
"""

from __future__ import annotations

import os
from typing import Any, Final, Protocol
from weakref import WeakSet


class Closable(Protocol):
    """A socket or an unbuffered file; a buffered one may hold the lock of a thread that the child does not have."""

    def close(self) -> object: ...


class HeldDescriptors:
    """Closed in every child that this process forks from now on. What nobody else refers to is forgotten."""

    def __init__(self) -> None:
        self._held: WeakSet[Any] = WeakSet()
        self._registered = False

    def add(self, descriptor: Closable) -> None:
        """Holds ``descriptor`` for this process alone."""
        self._held.add(descriptor)
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._close)

    def _close(self) -> None:
        failed: Exception | None = None
        for descriptor in list(self._held):
            try:
                descriptor.close()
            except Exception as error:  # noqa: BLE001 - the others are to be closed all the same.
                failed = error
        self._held.clear()
        if failed is not None:
            raise failed


held_by_this_process: Final = HeldDescriptors()
"""One per process: what is registered with the interpreter for forks stays registered, so it is registered once."""
