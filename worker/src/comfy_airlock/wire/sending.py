"""The sending half of a stream socket: one frame after the other, from any thread, whole or not at all.

What interrupts a send (Ctrl-C, or what another signal's handler raises) passes through. Where a part of the frame is on
its way by then, nothing can follow it: whatever came next would be taken for the rest of it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from itertools import repeat
from typing import Final

DONTWAIT: Final = repeat(socket.MSG_DONTWAIT)
"""The flag as often as it is asked for, for ``map``."""


class Torn(Exception):
    """A frame before was interrupted in the middle; nothing of this one was sent."""


class Sender:
    """Whoever sends on one socket.

    Attributes:
        is_torn: whether half a frame was sent, so that nothing more can be.
    """

    def __init__(self, link: socket.socket, before_blocking: Callable[[], None]) -> None:
        """
        Args:
            before_blocking: called before a send that waits: two sides that both send and don't read would wait for
                each other for ever.
        """
        self._link = link
        self._before_blocking = before_blocking
        self._mutex = threading.Lock()
        self.is_torn = False

    def send(self, frame: bytes, sent: list[int]) -> None:
        """Sends one frame, and notes in ``sent`` how much went each time.

        Raises:
            Torn: none can be sent any more.
            OSError: the socket broke.
        """
        with self._mutex:
            if self.is_torn:
                raise Torn("a message before was interrupted in the middle")
            try:
                # Sent and noted by one call into C: a signal's handler, which may raise, runs before or after it.
                # Between `count = send(…)`'s two halves it would make a half frame look as if nothing had been sent.
                sent.extend(map(self._link.send, (frame,), DONTWAIT))
                if sent[0] != len(frame):
                    self._send_rest(frame, sent)
            except BlockingIOError:
                self._send_rest(frame, sent)
            finally:
                self.is_torn = 0 < sum(sent) < len(frame)

    def _send_rest(self, frame: bytes, sent: list[int]) -> None:
        self._before_blocking()
        rest = memoryview(frame)[sum(sent) :]
        while rest:
            sent.extend(map(self._link.send, (rest,)))
            rest = rest[sent[-1] :]

    def send_last(self, frame: bytes) -> None:
        """Sends a frame where that can be done without waiting; otherwise nothing happens."""
        if not self._mutex.acquire(blocking=False):
            return
        try:
            self._link.send(frame, socket.MSG_DONTWAIT)
        except OSError:
            pass
        finally:
            self._mutex.release()

    def close(self) -> None:
        """Closes the socket, not under a thread that sends: its number may be another's a moment later."""
        with self._mutex:
            self._link.close()
