"""Which pages of a private mapping were written to: the kernel knows, as it had to copy them.

PAGEMAP_SCAN where there is one (Linux 6.7), else the plain page map, whose entries say the same.
"""

from __future__ import annotations

import fcntl
import os
import struct
from ctypes import addressof, create_string_buffer
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")
"""The system's, which the map is of; those on the wire may be smaller."""
_SCAN: Final = 0xC0606610
"""_IOWR('f', 16, struct pm_scan_arg)"""
_REQUEST: Final = struct.Struct("<12Q")
_REGION_BYTES: Final = 24
_IS_FILE: Final = 1 << 2
_IS_PRESENT: Final = 1 << 3
_IS_SWAPPED: Final = 1 << 4

_ENTRY_BYTES: Final = 8
_ENTRY_PRESENT: Final = 1 << 63
_ENTRY_SWAPPED: Final = 1 << 62
_ENTRY_FILE: Final = 1 << 61
_ENTRIES_AT_ONCE: Final = 64 * 1024


class PageMap:
    """This process's page map. A forked child needs one of its own."""

    def __init__(self) -> None:
        self._region = create_string_buffer(_REGION_BYTES)
        self._can_scan = True
        try:
            self._descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1

    @property
    def is_quick(self) -> bool:
        """Whether asking costs less than new mappings would."""
        return self._can_scan

    def close(self) -> None:
        """Nothing is asked any more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def is_written(self, address: int, size: int) -> bool:
        """Whether a page of these, which are mapped privately, was written to. True where nobody can tell."""
        # It may be closed meanwhile; a number that is no descriptor any more is an error that is looked for.
        descriptor = self._descriptor
        if descriptor < 0:
            return True
        first = address - address % _PAGE_BYTES
        end = -(-(address + size) // _PAGE_BYTES) * _PAGE_BYTES
        try:
            if self._can_scan:
                return self._scan(descriptor, first, end)
        except OSError:
            self._can_scan = False
        try:
            return self._read(descriptor, first, end)
        except OSError:
            return True

    def _scan(self, descriptor: int, first: int, end: int) -> bool:
        # Anonymous pages, present or swapped out; one of them is enough.
        request = bytearray(
            _REQUEST.pack(
                *(_REQUEST.size, 0, first, end, 0),
                *(addressof(self._region), 1, 1),
                *(_IS_FILE, _IS_FILE, _IS_PRESENT | _IS_SWAPPED, _IS_PRESENT | _IS_SWAPPED),
            )
        )
        return fcntl.ioctl(descriptor, _SCAN, request) > 0

    @staticmethod
    def _read(descriptor: int, first: int, end: int) -> bool:
        at = first // _PAGE_BYTES
        last = end // _PAGE_BYTES
        while at < last:
            count = min(last - at, _ENTRIES_AT_ONCE)
            entries = os.pread(descriptor, count * _ENTRY_BYTES, at * _ENTRY_BYTES)
            if len(entries) != count * _ENTRY_BYTES:
                return True
            for (entry,) in struct.iter_unpack("<Q", entries):
                if entry & (_ENTRY_PRESENT | _ENTRY_SWAPPED) and not entry & _ENTRY_FILE:
                    return True
            at += count
        return False
