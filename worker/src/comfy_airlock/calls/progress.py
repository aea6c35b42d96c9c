"""Progress of one call that its caller has not got to yet: the newest of it, within a bound of bytes.

What was said before is out of date by then, so the oldest goes first. Knows nothing of who waits for it, or how.
"""

from __future__ import annotations

import threading
from collections import deque

from comfy_airlock.wire.frame import HEADER_BYTES, Frame
from comfy_airlock.wire.limits import PROGRESS_BYTES_MAX


class WaitingProgress:
    """A queue that the thread that reads puts into, and the caller takes from."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._frames: deque[Frame] = deque()
        self._bytes = 0

    def put(self, frame: Frame) -> list[Frame]:
        """Takes progress in. Returns what was dropped for it."""
        dropped: list[Frame] = []
        with self._mutex:
            self._frames.append(frame)
            self._bytes += _size(frame)
            while self._bytes > PROGRESS_BYTES_MAX and len(self._frames) > 1:
                oldest = self._frames.popleft()
                self._bytes -= _size(oldest)
                dropped.append(oldest)
        return dropped

    def take(self) -> list[Frame]:
        """All that waits, in order."""
        with self._mutex:
            frames = list(self._frames)
            self._frames.clear()
            self._bytes = 0
            return frames


def _size(frame: Frame) -> int:
    """With the header, as one without a body is not nothing."""
    return HEADER_BYTES + len(frame.body)
