"""What a worker's own allocator keeps of large tensors that are gone, so that the next lie in pages that are there.

glibc gives a block of more than 32 MiB back to the kernel as it is freed, and asks for each new one anew, which is a
fault for every page: for what torch computes of a GiB, those take longer than the computing. So while large tensors
come, blocks of any size are made of its heap, which keeps them. Pieces that are too small for what is asked for next
would stay there, too, and nobody else could use them: it is looked again and again that there are no more of them than
a bound, and soon after no more such tensors come, everything is given back.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.room import memory_room, total_bytes

_MiB: Final = 1024 * 1024

LARGE_BYTES: Final = 32 * _MiB
"""Bytes of a message's tensors from which on they are large: the most that glibc makes of its heap by itself."""

_ON_SECONDS: Final = 2.0
"""How long blocks of any size are made of the heap after large tensors came."""

_LOOK_SECONDS: Final = 0.2
"""How often it is looked how much the heap keeps meanwhile."""

_IDLE_SECONDS: Final = 30.0
"""How long it keeps anything after that: as long as an empty segment is kept."""

_SHARE_OF_MACHINE: Final = 16
_SHARE_OF_LIMIT: Final = 8
_SHARE_OF_ROOM: Final = 4
"""What may be kept, of the machine's memory, of the pack's limit, and of what is free at first."""


class Allocator(Protocol):
    """What this process gets its memory from."""

    def keep_large(self, bytes_max: int) -> None:
        """Makes large blocks of the heap from now on, and keeps so many bytes free at its end; 0 ends that."""

    def kept_bytes(self) -> int:
        """About how much memory it has that nobody uses."""
        ...

    def trim(self) -> None:
        """Gives that back."""


class Recycling:
    """One process's."""

    def __init__(self, allocator: Allocator, look_later: Callable[[float], None], bytes_max: int) -> None:
        """
        Args:
            look_later: has :meth:`look` called after so many seconds, on a thread for that.
            bytes_max: how much may be kept.
        """
        self._allocator = allocator
        self._look_later = look_later
        self._bytes_max = bytes_max
        self._mutex = threading.Lock()
        self._latest = float("-inf")
        self._is_on = False
        self._will_look = False

    def on_bytes(self, size: int) -> None:
        """Tensors of so many bytes have come, or are about to go."""
        if size < LARGE_BYTES:
            return
        self._latest = time.monotonic()
        if self._is_on:
            return
        with self._mutex:
            self._is_on = True
            self._allocator.keep_large(self._bytes_max)
            if not self._will_look:
                self._will_look = True
                self._look_later(_LOOK_SECONDS)

    def look(self) -> None:
        """Gives back what is more than may be kept, and everything after a while."""
        with self._mutex:
            seconds = time.monotonic() - self._latest
            if self._is_on and seconds >= _ON_SECONDS:
                self._is_on = False
                self._allocator.keep_large(0)
            is_idle = seconds >= _IDLE_SECONDS
            if is_idle or self._allocator.kept_bytes() > self._bytes_max:
                self._allocator.trim()
            self._will_look = not is_idle
            if self._will_look:
                self._look_later(_LOOK_SECONDS if self._is_on else _ON_SECONDS)


_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
_MMAP_MAX_DEFAULT: Final = 65536
_INT_MAX: Final = 2**31 - 1


def recycling_here(look_later: Callable[[float], None], limit_bytes: int | None) -> Recycling | None:
    """This process's; None where its allocator has ways of its own.

    Args:
        limit_bytes: how much memory the pack may use, if that is limited.
    """
    allocator = Glibc.of_this_process()
    if allocator is None:
        return None
    room = memory_room()
    bounds = [total_bytes() // _SHARE_OF_MACHINE]
    if limit_bytes is not None:
        bounds.append(limit_bytes // _SHARE_OF_LIMIT)
    if room is not None:
        bounds.append(room.free_bytes // _SHARE_OF_ROOM)
    return Recycling(allocator, look_later, min(bounds))


class _Usage(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


class Glibc:
    """The C library's, where that is glibc 2.33 or later."""

    def __init__(self, libc: Any) -> None:
        self._libc = libc
        libc.mallinfo2.restype = _Usage

    @staticmethod
    def of_this_process() -> Glibc | None:
        """None where it is another, which has ways of its own."""
        libc = ctypes.CDLL(None)
        has_all = all(hasattr(libc, name) for name in ("mallopt", "mallinfo2", "malloc_trim", "gnu_get_libc_version"))
        return Glibc(libc) if has_all else None

    def keep_large(self, bytes_max: int) -> None:
        """As :class:`Allocator` has it, and so the others."""
        # Once one of these is set, glibc adapts none of them: these are what it would come to where blocks are large.
        self._libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        self._libc.mallopt(_M_TRIM_THRESHOLD, min(bytes_max, _INT_MAX) if bytes_max else 2 * LARGE_BYTES)
        self._libc.mallopt(_M_MMAP_MAX, 0 if bytes_max else _MMAP_MAX_DEFAULT)

    def kept_bytes(self) -> int:
        # What is free may have been given back already: it is no more than what is there and not in use.
        usage = self._libc.mallinfo2()
        return min(int(usage.fordblks), max(0, _anonymous_bytes() - usage.uordblks - usage.hblkhd))

    def trim(self) -> None:
        self._libc.malloc_trim(ctypes.c_size_t(0))


def _anonymous_bytes() -> int:
    """Memory of this process that is no file's, in bytes."""
    with open("/proc/self/statm", "rb", buffering=0) as file:
        _, resident, shared, *_ = file.read(256).split()
    return (int(resident) - int(shared)) * PAGE_BYTES
