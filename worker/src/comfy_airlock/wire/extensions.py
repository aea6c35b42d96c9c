"""The msgpack extension codes of the wire. Twin of ``src/transport/extensions.ts``."""

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
