"""What one message carries besides plain values, and what becomes of that."""

from __future__ import annotations

from comfy_airlock.calls.arrays import PackedArrays
from comfy_airlock.wire.frame import Cargo
from comfy_airlock.wire.reference import ReferenceTable


class Load:
    """What one message carries besides plain values, from when it is encoded until nothing can become of it any more.

    Attributes:
        cargo: as its frame has it.
    """

    __slots__ = ("_arrays", "_receipts", "_references", "cargo")

    def __init__(self, references: ReferenceTable, receipts: list[int] | None, arrays: PackedArrays | None) -> None:
        self._references = references
        self._receipts = receipts
        self._arrays = arrays
        attachments = b"" if arrays is None else arrays.attachments
        self.cargo = Cargo(receipts is not None, arrays is not None, attachments)

    def taking(self, returns: bytes) -> None:
        """Takes leases along that are to be returned."""
        self.cargo = self.cargo._replace(returns=returns)

    def revert(self) -> None:
        """It was not sent."""
        self._references.revert(self._receipts)
        if self._arrays is not None:
            self._arrays.take_back()

    def unsent(self, *, may_be_sent: bool) -> None:
        """Sending it failed. What may be with the other side all the same is kept: too long, rather than too short."""
        if may_be_sent:
            self.abandoned()
        else:
            self.revert()

    def undelivered(self) -> None:
        """Nobody was given it, and so none of what it holds. The server has given back its blocks already."""
        self._references.revert(self._receipts)

    def abandoned(self) -> None:
        """It was given up: the other side has it, or never will."""
        if self._arrays is not None:
            self._arrays.abandoned()

    def settled(self) -> None:
        """It is with the other side: what is there of it is in that one's hands, and ends with it."""
        if self._arrays is not None:
            self._arrays.settled()
