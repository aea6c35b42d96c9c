"""A reference as it crosses: what stands for an object that stays where it lives. Twin of ``references.ts``.

And what the codec asks of whoever keeps those objects.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from comfy_airlock.wire.errors import ValueInvalid

KINDS: Final = frozenset({"function", "iterator", "async_iterator", "object"})

_THEIRS: Final = 0
_YOURS: Final = 1
_NUMBER_END: Final = 1 << 53
"""JavaScript's numbers are exact below it."""


class Reference(NamedTuple):
    """One reference.

    Attributes:
        number: its owner's number for the object.
        kind: one of :data:`KINDS`; None where the receiver owns the object, and knows.
        type: ``module:qualified.name`` there; None likewise.
    """

    number: int
    kind: str | None = None
    type: str | None = None

    def items(self) -> list[Any]:
        """What the extension's payload is."""
        if self.kind is None:
            return [_YOURS, self.number]
        return [_THEIRS, self.number, self.kind, self.type]


def read_reference(items: list[Any]) -> Reference:
    """The reference that an extension's payload is.

    Raises:
        ValueInvalid: it is none.
    """
    owner, number, *rest = items if len(items) >= 2 else (None, None)
    if type(owner) is int and type(number) is int and 0 <= number < _NUMBER_END:
        if owner == _YOURS and not rest:
            return Reference(number)
        if owner == _THEIRS and len(rest) == 2 and type(rest[0]) is str and rest[0] in KINDS and type(rest[1]) is str:
            return Reference(number, *rest)
    raise ValueInvalid("a reference is malformed")


class ReferenceTable(Protocol):
    """Objects that stay where they live, and what crosses in their place."""

    @property
    def unsettled(self) -> object:
        """True in a condition where :meth:`settle` may have something to tell."""

    def describe(self, value: Any, /) -> Reference | None:
        """What stands for an object, which counts as sent from now on; None where nothing can."""

    def settle(self) -> list[int] | None:
        """What :meth:`describe` has counted in this thread since this was asked last; None where it was not asked."""
        ...

    def revert(self, receipts: list[int] | None, /) -> None:
        """What :meth:`settle` gave will not be sent."""

    def restore(self, reference: Reference, /) -> Any:
        """The object, or a stand-in for it."""
