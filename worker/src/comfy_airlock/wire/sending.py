"""The sending half of a stream socket: one frame after the other, from any thread, whole or not at all.

What interrupts a send (Ctrl-C, or what another signal's handler raises) passes through. Where a part of the frame is on
its way by then, nothing can follow it: whatever came next would be taken for the rest of it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from itertools import repeat
from typing import Final, NoReturn

_DONTWAIT: Final = int(socket.MSG_DONTWAIT)

DONTWAIT: Final = repeat(_DONTWAIT)
"""The flag as often as it is asked for, for ``map``."""


_WHOLE_BYTES_MAX: Final = 16 * 1024
"""Bytes that a Unix socket takes in one piece: far less than half of any send buffer, of which it makes pieces."""


class Torn(Exception):
    """A frame before was interrupted in the middle; nothing of this one was sent."""


class Sender:
    """Whoever sends on one socket.

    Attributes:
        is_torn: whether half a frame was sent, so that nothing more can be.
    """

    def __init__(
        self,
        link: socket.socket,
        before_blocking: Callable[[], None],
        failed: Callable[[BaseException, bool], None],
    ) -> None:
        """
        Args:
            before_blocking: called before a send that waits: two sides that both send and don't read would wait for
                each other for ever.
            failed: told why a frame could not be sent, and whether some of it was; may raise what that means.
        """
        self._link = link
        self._before_blocking = before_blocking
        self._failed = failed
        self._mutex = threading.Lock()
        self.is_torn = False

    def send(self, frame: bytes, noted: list[int] | None = None) -> None:
        """Sends one frame.

        Args:
            noted: where it is noted how many bytes were sent, for who must know that of a frame that failed.

        Raises:
            Torn: none can be sent any more.
            OSError: the socket broke.
        """
        try:
            with self._mutex:
                if self.is_torn:
                    self._refuse()
                if noted is None and len(frame) <= _WHOLE_BYTES_MAX:
                    # The kernel takes it whole or not at all, so an interrupt leaves the stream in order.
                    try:
                        count = self._link.send(frame, _DONTWAIT)
                    except BlockingIOError:
                        count = 0
                    if count == len(frame):
                        return
                    noted = [count] if count else []
                noted = [] if noted is None else noted
                try:
                    self._send_noted(frame, noted)
                except BaseException:
                    self.is_torn = 0 < sum(noted) < len(frame)
                    raise
        except BaseException as error:
            self._failed(error, bool(noted))
            raise

    def _send_noted(self, frame: bytes, sent: list[int]) -> None:
        """Sends and notes by one call into C: a signal's handler, which may raise, runs before or after.

        Between the two it would make half a frame look as if nothing had been sent.
        """
        try:
            if not sent:
                sent.extend(map(self._link.send, (frame,), DONTWAIT))
        except BlockingIOError:
            pass
        if sum(sent) < len(frame):
            self._send_rest(frame, sent)

    def _send_rest(self, frame: bytes, sent: list[int]) -> None:
        self._before_blocking()
        rest = memoryview(frame)[sum(sent) :]
        while rest:
            sent.extend(map(self._link.send, (rest,)))
            rest = rest[sent[-1] :]

    def _refuse(self) -> NoReturn:
        raise Torn("a message before was interrupted in the middle")

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
