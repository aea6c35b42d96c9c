"""Arrays of a message that stand in a table before its value: what the codec asks of whoever keeps one.

The value names them by their places there. What a table's entries are, and where the elements lie, the codec doesn't
know. PROTOCOL.md, "Arrays".
"""

from __future__ import annotations

from typing import Any, Protocol

from comfy_airlock.wire.errors import ValueInvalid
from comfy_airlock.wire.laden import LadenBody


class ArrayTable(Protocol):
    """Arrays of a message, which its value names by their places in a table before it."""

    @property
    def noted(self) -> object:
        """True in a condition where :meth:`take` may have something. The same object for ever."""

    def note(self, value: Any, /) -> int:
        """The place of an array in the message that this thread encodes.

        Raises:
            ManyArrays: there are so many that it pays to look for lists of them.
        """
        ...

    def take(self) -> list[Any] | None:
        """What this thread has noted since it asked last."""
        ...

    def allow_many(self, noted: list[Any] | None = None, /) -> None:
        """Has :meth:`note` take any number, until what was noted is taken.

        Args:
            noted: what this thread has noted already.
        """

    def rewrite(self, value: Any, /) -> Any:
        """The value with large bytes marked as arrays, and lists of arrays as runs, whose arrays are noted.

        The value itself where it has neither.
        """

    def to_entries(self, noted: list[Any], /) -> list[Any]:
        """The table for what was noted. It names blocks that count as sent from now on."""
        ...

    def from_entries(self, entries: Any, body: LadenBody, /) -> list[Any]:
        """The arrays that a table stands for."""
        ...

    def check(self, value: Any, /) -> None:
        """Raises ValueUnsupported for an array that can't cross."""

    def revert(self) -> None:
        """What this thread has noted, and what of it counts as sent, will not be sent."""


class ManyArrays(Exception):
    """A message has so many arrays that it is encoded anew, with lists of them in one."""


class ArrayRun:
    """Stands for a list of arrays that follow one another in a message's table."""

    __slots__ = ("count", "first")

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count


def array_at(decoded: list[Any], place: Any) -> Any:
    """The array at a place of a message's table, or the list of those from one on."""
    if type(place) is int and 0 <= place < len(decoded):
        return decoded[place]
    if isinstance(place, list) and len(place) == 2 and all(type(each) is int and each >= 0 for each in place):
        first, count = place
        if first + count <= len(decoded):
            return decoded[first : first + count]
    raise ValueInvalid(f"array {place!r} is named, and the message has {len(decoded)}")
