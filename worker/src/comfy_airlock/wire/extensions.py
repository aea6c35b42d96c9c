"""The msgpack extension codes of the wire, and how extensions begin. Twin of ``src/transport/extensions.ts``."""

import struct
from typing import Final

TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
COMPLEX: Final = 4
ARRAY: Final = 5
NAMED: Final = 6
REFERENCE: Final = 7
"""An object that stays where it lives."""
BIGINT: Final = 0x42
"""An int beyond 64 bits: big-endian two's complement."""

_FIXED_HEADS: Final = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
"""First bytes of extensions by their payload's length, where that is all that they tell."""
FIXED_TOTALS: Final = {head: 2 + length for length, head in _FIXED_HEADS.items()}
"""How long such an extension is, by its first byte."""
EXTENSION_FIRST: Final = 0xC7
"""The least of the bytes that extensions begin with; it is followed by a length of one byte."""
_MEDIUM_HEAD: Final = struct.Struct(">BHB")
_LONG_HEAD: Final = struct.Struct(">BIB")


def extension_head(code: int, length: int) -> bytes:
    """How an extension begins whose payload is encoded already."""
    fixed = _FIXED_HEADS.get(length)
    if fixed is not None:
        return bytes([fixed, code])
    if length < 0x100:
        return bytes([EXTENSION_FIRST, length, code])
    return _MEDIUM_HEAD.pack(0xC8, length, code) if length < 0x10000 else _LONG_HEAD.pack(0xC9, length, code)
