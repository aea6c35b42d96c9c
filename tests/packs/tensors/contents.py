"""Arrays whose every byte follows from a seed, so that whoever has one, and knows its seed, can tell a wrong byte.

Where SOAK_TORCH is set their memory is torch's, as that of tensors is.
"""

from __future__ import annotations

import os
import threading
from importlib import import_module
from typing import Any

import numpy

_MULTIPLIER = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1
_TYPES = ("uint8", "int16", "uint32", "int64")


class _Words:
    """As many words as were asked for at once so far, each another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words = numpy.zeros(0, "uint64")

    def take(self, count: int) -> Any:
        with self._lock:
            if self._words.size < count:
                self._words = numpy.arange(max(count, 2 * self._words.size), dtype="uint64") * numpy.uint64(_MULTIPLIER)
            return self._words[:count]


_words = _Words()


def make(seed: int, size: int) -> Any:
    """An array of about ``size`` bytes. Its dtype, shape and order follow from the seed as well.

    No two seeds have one word in common at the same place; nor has one seed at two places.
    """
    mixed = (seed * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D) & _WORD
    dtype = numpy.dtype(_TYPES[(mixed >> 60) & 3])
    # A word with any of its bits set by the seed's own.
    words = numpy.add(_words.take(-(-size // 8)), numpy.uint64(mixed), out=_memory(-(-size // 8)))
    array = words.view("uint8")[: size - size % dtype.itemsize].view(dtype)
    form = (mixed >> 56) & 3
    if form == 0 or array.size < 12:
        return array
    rows = array[: array.size - array.size % 6].reshape(6, -1)
    if form == 1:
        return rows
    if form == 2:
        return rows.T
    return rows.reshape(2, 3, -1).transpose(1, 2, 0)


def _memory(words: int) -> Any:
    if not os.environ.get("SOAK_TORCH"):
        return numpy.empty(words, "uint64")
    torch: Any = import_module("torch")
    return torch.empty(words, dtype=torch.int64).numpy().view("uint64")


def check(array: Any, seed: int, size: int, where: str) -> None:
    """Raises ValueError where it is not what :func:`make` makes of this seed and size."""
    expected = make(seed, size)
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise ValueError(f"wrong array {where}: {array.dtype} {array.shape}, not {expected.dtype} {expected.shape}")
    if not numpy.array_equal(array, expected):
        wrong = numpy.flatnonzero((array != expected).ravel())
        raise ValueError(
            f"wrong bytes {where}: {wrong.size} of {array.size} elements of seed {seed}, {wrong[0]} to {wrong[-1]}, "
            f"{array.dtype} {array.shape} {array.strides}; the first are {array.ravel()[wrong[:4]]}, "
            f"not {expected.ravel()[wrong[:4]]}"
        )
