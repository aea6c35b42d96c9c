"""The system calls that map memory, by ctypes: Python's own ``mmap`` holds a copy of the descriptor for each mapping.

Thin and typed: a failure is an OSError with its errno. Linux.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

PAGE_BYTES: Final = 4096
"""Bytes of a page on the wire; the system's may be larger, and then mappings are."""

_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 1
_MAP_PRIVATE: Final = 2
_MADV_DONTFORK: Final = 10
_MADV_DOFORK: Final = 11
_MADV_POPULATE_WRITE: Final = 23
_EINVAL: Final = 22
_FAILED: Final = ctypes.c_void_p(-1).value


def _bind() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


_libc: Final = _bind()


def _failed(call: str) -> OSError:
    errno = ctypes.get_errno()
    return OSError(errno, f"{call}: {os.strerror(errno)}")


def _map(descriptor: int, offset: int, size: int, protection: int, flags: int) -> int:
    address = _libc.mmap(None, size, protection, flags, descriptor, offset)
    if address == _FAILED:
        raise _failed("mmap")
    found: int = address
    return found


def map_shared(descriptor: int, size: int) -> int:
    """Maps the first ``size`` bytes writable, seen by all; returns the address."""
    return _map(descriptor, 0, size, _PROT_READ | _PROT_WRITE, _MAP_SHARED)


def map_private(descriptor: int, offset: int, size: int) -> int:
    """Maps ``size`` bytes from ``offset``; what is written to them is seen by nobody else. Returns the address."""
    return _map(descriptor, offset, size, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE)


def unmap(address: int, size: int) -> None:
    """Ends a mapping."""
    if _libc.munmap(address, size):
        raise _failed("munmap")


def _advise(address: int, size: int, advice: int, name: str) -> None:
    if _libc.madvise(address, size, advice):
        raise _failed(f"madvise({name})")


def dont_fork(address: int, size: int) -> None:
    """Keeps a mapping out of forked children, which would write to it as its owner does."""
    _advise(address, size, _MADV_DONTFORK, "MADV_DONTFORK")


def do_fork(address: int, size: int) -> None:
    """Has forked children get a mapping, as they do by default."""
    _advise(address, size, _MADV_DOFORK, "MADV_DOFORK")


def populate(address: int, size: int) -> None:
    """Has all pages of a writable mapping present, so that no later write has to wait for one.

    Raises:
        OSError: there is not enough memory.
    """
    try:
        _advise(address, size, _MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE")
    except OSError as error:
        if error.errno != _EINVAL:
            raise
        # Before Linux 5.14; the pages were reserved already, so touching them can't fail.
        ctypes.memset(address, 0, size)


def copy(target: int, source: int, size: int) -> None:
    """Copies ``size`` bytes from one address to another. Other threads run meanwhile where it is much."""
    _libc.memcpy(ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size))


def write_u32(address: int, value: int) -> None:
    """Puts a number at an address."""
    ctypes.c_uint32.from_address(address).value = value


def buffer_at(address: int, size: int) -> Any:
    """A writable buffer over memory at an address, which takes attributes: whatever keeps that memory there."""
    return (ctypes.c_char * size).from_address(address)


def address_of(buffer: bytearray) -> int:
    """Where a buffer's bytes lie, for as long as it is neither resized nor garbage."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def bytes_at(address: int, size: int) -> bytes:
    """A copy of the bytes at an address."""
    return ctypes.string_at(address, size)
