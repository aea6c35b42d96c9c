"""The body of a frame that brings more than plain values: references, arrays, blocks of memory."""

from __future__ import annotations

from typing import Any


class LadenBody(bytearray):
    """As long as it is there, somebody may still decode it.

    Attributes:
        has_arrays: whether it is a table of arrays and the value that they are of.
        blocks: the memory that it names, which it keeps.
    """

    has_arrays = False
    blocks: list[Any] = []  # noqa: RUF012 - never changed, but replaced.
