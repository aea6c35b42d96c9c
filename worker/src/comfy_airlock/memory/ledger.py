"""What one other side holds of what this process gave it: leases, counted by receipts. Pure.

Invariant: as long as a receipt is out, what the block needs is kept here. A gift is counted when its message is made,
and taken back where that is not sent. When the other side is gone, all that it held is; but calls that wait for the
process that takes its place are still to be carried out, and what they hold is that one's. Twin of
``src/client/memory/lease-ledger.ts``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from comfy_airlock.wire.errors import ProtocolError


class BlockKey(NamedTuple):
    """A block, as long as its owner has not freed it: numbers of segments are given once, and generations count."""

    segment: int
    page: int
    generation: int


class Gift:
    """The leases of one message: a key for each attachment that is out."""

    __slots__ = ("keys", "life")

    def __init__(self, keys: list[BlockKey], life: int) -> None:
        self.keys = keys
        # During which of the other side's lives they count.
        self.life = life


class _Lease:
    __slots__ = ("count", "kept", "pages")

    def __init__(self, kept: object, pages: int) -> None:
        self.count = 0
        self.kept = kept
        self.pages = pages


class Ledger:
    """Leases given to one other side. Not safe from several threads: its owner sees to that."""

    def __init__(self) -> None:
        self._leases: dict[BlockKey, _Lease] = {}
        self._life = 0
        # In the order in which they were made. Made and not sent, or sent and waiting for a process that may not be
        # the one that is there now.
        self._waiting: dict[Gift, None] = {}
        # Of calls that were given up: the server returns those that it has not delivered, in whoever's life that is.
        self._abandoned: dict[Gift, None] = {}

    def give(self, blocks: Iterable[tuple[BlockKey, int, object]]) -> Gift:
        """Counts the leases of a message that is about to be sent.

        Args:
            blocks: for each attachment its key, its pages, and what must be kept as long as it is leased.
        """
        keys: list[BlockKey] = []
        for key, pages, kept in blocks:
            self._count(key, pages, kept)
            keys.append(key)
        gift = Gift(keys, self._life)
        self._waiting[gift] = None
        return gift

    def _count(self, key: BlockKey, pages: int, kept: object) -> None:
        lease = self._leases.get(key)
        if lease is None:
            lease = self._leases[key] = _Lease(kept, pages)
        lease.count += 1

    def settled(self, gift: Gift) -> None:
        """A gift's message is with the process that is there now, or was: what becomes of it is that one's fate."""
        self._waiting.pop(gift, None)

    def abandoned(self, gift: Gift) -> None:
        """A gift's message was given up while it waited: it may be with the process that is there now, or with none."""
        if gift in self._waiting:
            del self._waiting[gift]
            self._abandoned[gift] = None

    def take_back(self, gift: Gift) -> list[object]:
        """A gift's message was not sent. Returns what was kept for it; twice is no harm."""
        self._waiting.pop(gift, None)
        if gift.life != self._life:
            return []
        gift.life = -1
        return [kept for key in gift.keys if (kept := self._uncount(key)) is not None]

    def _uncount(self, key: BlockKey) -> object:
        lease = self._leases.get(key)
        if lease is None:
            return None
        lease.count -= 1
        if lease.count > 0:
            return None
        del self._leases[key]
        return lease.kept

    def undelivered(self, key: BlockKey) -> object:
        """The server gives back a receipt of a message that it did not deliver. Returns as :meth:`returned`."""
        if not any(key in gift.keys for gift in self._waiting):
            # It was of one that was given up, which is not kept for whoever comes next. Else it may be of one that is
            # about to be answered, and what was given up is kept for longer than need be.
            gift = next((each for each in self._abandoned if key in each.keys), None)
            if gift is not None:
                gift.keys.remove(key)
                if not gift.keys:
                    del self._abandoned[gift]
        return self._uncount(key)

    def returned(self, key: BlockKey, *, is_trusted: bool) -> object:
        """The other side gives one receipt back. Returns what was kept for it, if that was the last.

        Args:
            is_trusted: whether a receipt that was never given is passed over: those of a process that ended before
                may still come.

        Raises:
            ProtocolError: it holds no such receipt.
        """
        if key not in self._leases and not is_trusted:
            same_block = [held for held in self._leases if held[:2] == key[:2]]
            what = f"generation {same_block[0].generation} of it" if same_block else "none"
            raise ProtocolError(
                f"a lease of block {key.page} in segment {key.segment}, generation {key.generation}, was returned that "
                f"is not held: there is {what}"
            )
        return self._uncount(key)

    def end(self) -> list[object]:
        """The other side is gone, or another is in its place. Returns what was kept for it."""
        before = self._leases
        self._leases = {}
        self._life += 1
        # Those that wait for certain come first: of the others the one that is gone may have returned some.
        carried, self._abandoned = [*self._waiting, *self._abandoned], {}
        for gift in carried:
            gift.life = self._life
            gift.keys = [key for key in gift.keys if self._carry(key, before.get(key))]
        return [lease.kept for lease in before.values()]

    def close(self) -> list[object]:
        """The other side is gone, and nobody takes its place. Returns as :meth:`end`."""
        self._waiting, self._abandoned = {}, {}
        return self.end()

    def _carry(self, key: BlockKey, lease: _Lease | None) -> bool:
        """Whether a receipt was out still, which is counted for who comes next."""
        if lease is None or lease.count == 0:
            return False
        lease.count -= 1
        self._count(key, lease.pages, lease.kept)
        return True

    def has(self, key: BlockKey) -> bool:
        """Whether the other side holds a receipt of it."""
        return key in self._leases

    @property
    def count(self) -> int:
        """How many blocks the other side holds."""
        return len(self._leases)

    @property
    def pages(self) -> int:
        """How many pages those have."""
        return sum(lease.pages for lease in self._leases.values())
