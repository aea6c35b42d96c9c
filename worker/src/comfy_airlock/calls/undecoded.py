"""Bodies with references that were read and that somebody may still decode.

One of them may bring an object home that a release behind it gives back, so a release asks here whether those before it
are gone. Taking a body in costs the same however many wait. Does not keep a body.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final
from weakref import ref

from comfy_airlock.wire.frame import Body
from comfy_airlock.wire.laden import LadenBody

_KEPT_MIN: Final = 64


class UndecodedBodies:
    """Those of one pair, in the order in which they came."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last = 0
        self._bodies: deque[tuple[int, ref[LadenBody]]] = deque()
        self._cleared_at = _KEPT_MIN

    def hold(self, body: Body) -> LadenBody:
        """A body was read, and is decoded later. Called on the thread that reads."""
        held = LadenBody(body)
        with self._mutex:
            if len(self._bodies) >= self._cleared_at:
                # One that stays keeps those behind it that are gone: they are looked for each time that as many came.
                self._bodies = deque(each for each in self._bodies if each[1]() is not None)
                self._cleared_at = max(_KEPT_MIN, 2 * len(self._bodies))
            self._last += 1
            self._bodies.append((self._last, ref(held)))
        return held

    def any(self) -> bool:
        """Whether there is one that somebody may still decode."""
        with self._mutex:
            return any(body() is not None for _, body in self._bodies)

    @property
    def last(self) -> int:
        """The number of the one that came last, for :meth:`are_gone`. Asked on the thread that reads."""
        return self._last

    def are_gone(self, last: int) -> bool:
        """Whether nobody can decode that one any more, nor any before it."""
        with self._mutex:
            while self._bodies and self._bodies[0][1]() is None:
                self._bodies.popleft()
            return not self._bodies or self._bodies[0][0] > last
