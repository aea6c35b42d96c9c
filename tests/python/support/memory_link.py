"""The in-memory transport: two ends of a stream, joined without a socket; of a socket's interface, what is used."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable

_BUFFER_BYTES = 64 * 1024


class MemoryLink:
    """One end. What it holds is what the other has sent and nobody here has received."""

    def __init__(self, mutex: threading.Condition) -> None:
        self._changed = mutex
        self._bytes = bytearray()
        self._is_shut = False
        self._receive_seconds = 60.0
        # Readable whenever there is something to receive: for poll.
        self._readiness = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.far: MemoryLink = self

    @staticmethod
    def pair() -> tuple[MemoryLink, MemoryLink]:
        """Two ends, joined."""
        mutex = threading.Condition()
        near, far = MemoryLink(mutex), MemoryLink(mutex)
        near.far, far.far = far, near
        return near, far

    def fileno(self) -> int:
        return self._readiness

    def settimeout(self, seconds: float | None) -> None:
        assert seconds is None

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """How long receiving blocks, before it raises BlockingIOError."""
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_RCVTIMEO)
        seconds, microseconds = struct.unpack("@ll", value)
        self._receive_seconds = seconds + microseconds / 1e6

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Takes as much as there is room for; blocks for room unless ``flags``."""
        with self._changed:
            self._block(lambda: len(self.far._bytes) < _BUFFER_BYTES or self.far._is_shut, flags)
            if self.far._is_shut:
                raise BrokenPipeError("the other end is shut")
            taken = bytes(data[: _BUFFER_BYTES - len(self.far._bytes)])
            self.far._bytes += taken
            self.far._tell()
            return len(taken)

    def recv_into(self, buffer: memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Gives what there is; blocks for something unless ``flags``; 0 at the end."""
        del nbytes
        with self._changed:
            self._block(lambda: self._bytes or self._is_shut, flags, self._receive_seconds)
            count = min(len(buffer), len(self._bytes))
            buffer[:count] = self._bytes[:count]
            del self._bytes[:count]
            self._tell()
            return count

    def _block(self, is_over: Callable[[], object], flags: int, seconds: float = 60.0) -> None:
        if flags and not is_over():
            raise BlockingIOError
        # Woken now and then, as a test that hangs should be interruptible.
        until = time.monotonic() + seconds
        while not is_over():
            left = until - time.monotonic()
            if left <= 0:
                raise BlockingIOError
            self._changed.wait(min(1, left))

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._readiness < 0:
            return
        if self._bytes or self._is_shut:
            os.eventfd_write(self._readiness, 1)
        else:
            try:
                os.eventfd_read(self._readiness)
            except BlockingIOError:
                pass

    def shutdown(self, how: int) -> None:
        del how
        with self._changed:
            for end in (self, self.far):
                end._is_shut = True
                end._tell()

    def close(self) -> None:
        self.shutdown(2)
        with self._changed:
            descriptor, self._readiness = self._readiness, -1
        if descriptor >= 0:
            os.close(descriptor)
