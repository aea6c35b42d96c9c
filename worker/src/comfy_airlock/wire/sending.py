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


WHOLE_BYTES_MAX: Final = 16 * 1024
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
        # For ever: to acquire it gives no such thing.
        self._taking = iter(self._mutex.acquire, None)
        self.is_torn = False

    def send(self, frame: bytes, noted: list[int] | None = None) -> None:
        """Sends one frame.

        Args:
            noted: where it is noted how many bytes were sent, for who must know that of a frame that failed.

        Raises:
            Torn: none can be sent any more.
            OSError: the socket broke.
        """
        if noted is None and len(frame) <= WHOLE_BYTES_MAX:
            self.send_small(frame)
        else:
            self._send_any(frame, [] if noted is None else noted)

    def send_small(self, frame: bytes) -> None:
        """As :meth:`send`, for a frame of WHOLE_BYTES_MAX bytes at most, in fewer steps."""
        has_mutex = False
        try:
            try:
                # As a with does, in half the time: no signal's handler, which may raise, runs between a loop's step and
                # its variable.
                for has_mutex in self._taking:  # noqa: B007 - read below.
                    break
                if not self.is_torn:
                    # The kernel takes it whole or not at all, so an interrupt leaves the stream in order.
                    count = self._link.send(frame, _DONTWAIT)
                    if count != len(frame):
                        self._send_noted(frame, [count])
                    return
            finally:
                if has_mutex:
                    self._mutex.release()
        except BlockingIOError:
            pass
        except BaseException as error:
            self._failed(error, self.is_torn)
            raise
        self._send_any(frame, [])

    def _send_any(self, frame: bytes, noted: list[int]) -> None:
        try:
            with self._mutex:
                if self.is_torn:
                    self._refuse()
                self._send_noted(frame, noted)
        except BaseException as error:
            self._failed(error, bool(noted))
            raise

    def _send_noted(self, frame: bytes, sent: list[int]) -> None:
        """Sends and notes by one call into C: a signal's handler, which may raise, runs before or after.

        Between the two it would make half a frame look as if nothing had been sent.
        """
        try:
            if not sent:
                try:
                    sent.extend(map(self._link.send, (frame,), DONTWAIT))
                except BlockingIOError:
                    pass
            if sum(sent) < len(frame):
                self._send_rest(frame, sent)
        except BaseException:
            self.is_torn = 0 < sum(sent) < len(frame)
            raise

    def _send_rest(self, frame: bytes, sent: list[int]) -> None:
        self._before_blocking()
        rest = memoryview(frame)[sum(sent) :]
        while rest:
            sent.extend(map(self._link.send, (rest,)))
            rest = rest[sent[-1] :]

    def _refuse(self) -> NoReturn:
        raise Torn("a message before was interrupted in the middle")

    def send_if_free(self, frame: bytes) -> bool:
        """Sends a small frame where that can be done without waiting. False where it would have to be waited for."""
        has_mutex = False
        try:
            # As in send_small.
            for has_mutex in map(self._mutex.acquire, (False,)):  # noqa: B007
                break
            if not has_mutex:
                return False
            if not self.is_torn:
                self._link.send(frame, _DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass  # The other side is gone.
        finally:
            if has_mutex:
                self._mutex.release()
        return True

    def close(self) -> None:
        """Closes the socket, not under a thread that sends: its number may be another's a moment later."""
        with self._mutex:
            self._link.close()
