"""Bounds that a Python peer checks itself. Twin of ``src/transport/limits.ts``."""

from typing import Final

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of one frame after its header: bounds what a receiver buffers for it."""

SOCKET_PATH_BYTES_MAX: Final = 107
"""Bytes of a Unix socket's path, without its terminating zero."""
