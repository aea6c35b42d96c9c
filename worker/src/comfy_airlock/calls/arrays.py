"""Arrays between this process and one other: noted while a message is encoded, then put into its table.

What a message's blocks are to its receiver are leases, counted from the moment that they are in a table; a message
that is not sent gives them back. Nothing of how memory is shared is imported before a first array.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from comfy_airlock.wire.array_table import ArrayRun, ManyArrays
from comfy_airlock.wire.arrays import LargeBytes, is_array_type
from comfy_airlock.wire.frame import ATTACHMENT
from comfy_airlock.wire.laden import LadenBody
from comfy_airlock.wire.limits import INLINE_ARRAY_BYTES
from comfy_airlock.wire.optional import standard

if TYPE_CHECKING:
    from comfy_airlock.memory.blocks import Block
    from comfy_airlock.memory.leases import Leases
    from comfy_airlock.memory.nursery import BornBlock

_BYTES: Final = (bytes, bytearray, memoryview)
_DEEP_MAX: Final = 64

_MANY: Final = 32
"""Arrays of a message from which on it is looked at for lists of them."""
_RUN_MIN: Final = 4


class CannotTake(Exception):
    """The other side takes no blocks, as the first that it was to be given shows."""


class PackedArrays:
    """The arrays of one message, all of which are in it."""

    attachments: bytes = b""

    def decided(self) -> PackedArrays:
        """As they are sent, now that whoever encoded them has let go of what it doesn't need any more.

        Raises:
            LimitExceeded: there is no memory for them.
        """
        return self

    def settled(self) -> None:
        """The message is with the process that is there now, or was."""

    def abandoned(self) -> None:
        """The message was given up, wherever it was by then."""

    def take_back(self) -> None:
        """The message was not sent."""


class LeasedArrays(PackedArrays):
    """Those of a message that names blocks: its attachments, and the leases that they are."""

    def __init__(self, blocks: list[Block], leases: Leases) -> None:
        self.attachments = b"".join(map(_attachment, blocks))
        self._leases = leases
        self._gift = leases.give(blocks)

    def settled(self) -> None:
        self._leases.settled(self._gift)

    def abandoned(self) -> None:
        self._leases.abandoned(self._gift)

    def take_back(self) -> None:
        self._leases.take_back(self._gift)


class BornArrays(PackedArrays):
    """Those of a message some of whose blocks torch made tensors in, and may have to be copied. None is leased yet."""

    def __init__(self, blocks: list[Block | BornBlock], leases: Leases) -> None:
        self._blocks = blocks
        self._leases = leases

    def decided(self) -> PackedArrays:
        return LeasedArrays(self._leases.decided(self._blocks), self._leases)


class Arrays:
    """Those of one pair of processes.

    Attributes:
        noted, unsettled: by thread; what is asked most is whether there is any.
    """

    def __init__(self, open_leases: Callable[[], Leases | None]) -> None:
        """
        Args:
            open_leases: gives what blocks are shared by; None where the other side can't be given any.
        """
        self._open_leases = open_leases
        self._leases: Leases | None = None
        self._is_open = False
        self._inline: set[int] = set()
        self._many: set[int] = set()
        self.noted: dict[int, list[Any]] = {}
        self.unsettled: dict[int, PackedArrays] = {}

    def share(self, array: Any) -> Any:
        """As :meth:`Memory.share`, for the other side; the array itself where no memory is shared."""
        leases = self._open()
        return array if leases is None else leases.memory.share(array, leases.audience)

    def _open(self) -> Leases | None:
        if not self._is_open:
            self._leases = self._open_leases()
            self._is_open = True
        return self._leases

    # While a message is encoded, in its thread.

    def note(self, value: Any) -> int:
        thread = get_ident()
        noted = self.noted.get(thread)
        if noted is None:
            noted = self.noted[thread] = []
        elif len(noted) == _MANY and thread not in self._many:
            raise ManyArrays
        noted.append(value)
        return len(noted) - 1

    def allow_many(self, noted: list[Any] | None = None) -> None:
        self._many.add(get_ident())
        self.noted[get_ident()] = [] if noted is None else noted

    def take(self) -> list[Any] | None:
        thread = get_ident()
        self._many.discard(thread)
        return self.noted.pop(thread, None)

    def check(self, value: Any) -> None:
        standard("comfy_airlock.memory.sources").source_of(value)

    def rewrite(self, value: Any) -> Any:
        thread = get_ident()
        marks_bytes = thread not in self._inline and self._open() is not None
        self.allow_many()
        return _rewritten(value, 0, self.noted[thread], marks_bytes)

    def to_entries(self, noted: list[Any]) -> list[Any]:
        thread = get_ident()
        leases = None if thread in self._inline else self._open()
        if leases is not None:
            leases.memory.check_process()
        store = None if leases is None or not leases.can_take else _Store(leases)
        pack = standard("comfy_airlock.memory.packing").pack
        try:
            packed = pack(noted, store)
        except CannotTake:
            packed = pack(noted, None)
        if leases is not None:
            leases.memory.count(packed.copied, packed.forwarded)
        leased = PackedArrays()
        if leases is not None and packed.blocks:
            leased = (BornArrays if packed.has_born else LeasedArrays)(packed.blocks, leases)
        self.unsettled[thread] = leased
        entries: list[Any] = packed.entries
        return entries

    def settle(self) -> PackedArrays | None:
        """What the message that this thread has encoded last carries of arrays; None where it has none.

        Raises:
            LimitExceeded: there is no memory for them.
        """
        packed = self.unsettled.pop(get_ident(), None)
        return None if packed is None else packed.decided()

    def revert(self) -> None:
        self.take()
        packed = self.unsettled.pop(get_ident(), None)
        if packed is not None:
            packed.take_back()

    def inline(self, encode: Callable[[], bytes]) -> bytes:
        """Encodes a message that can carry no leases: nobody would know whether it arrives."""
        thread = get_ident()
        self._inline.add(thread)
        try:
            return encode()
        finally:
            self._inline.discard(thread)

    # When one arrives.

    def receive(self, body: LadenBody, attachments: bytes, *, is_direct: bool) -> None:
        """Takes the blocks that a message names. Called on the thread that reads.

        Raises:
            ProtocolError: the other side names what it can't have a lease of.
        """
        leases = self._open() if attachments else None
        if leases is not None:
            body.blocks = leases.receive(attachments, is_direct=is_direct)

    def from_entries(self, entries: Any, body: LadenBody) -> list[Any]:
        arrays: list[Any] = standard("comfy_airlock.memory.unpacking").unpack(entries, lambda: self._mapped(body))
        return arrays

    def _mapped(self, body: LadenBody) -> list[Any]:
        leases = self._open()
        return [] if leases is None or not body.blocks else leases.memory.map(body.blocks)

    def take_returns(self) -> bytes:
        """Leases to be returned, for a message over a line that takes them along."""
        leases = self._leases
        return leases.take_returns() if leases is not None and leases.may_return() else b""

    def returned(self, attachments: bytes, call: int, *, is_direct: bool) -> None:
        """Takes back what the other side returns. Raises ProtocolError as :meth:`Leases.returned` does."""
        if self._leases is not None:
            self._leases.returned(attachments, call, is_direct=is_direct)

    def reclaim(self) -> None:
        """The other side is short of memory."""
        if self._leases is not None:
            self._leases.memory.reclaimed()

    def end(self) -> None:
        """The other process is gone, or another is in its place."""
        if self._leases is not None:
            self._leases.end()


class _Store:
    """Where the blocks of a message come from."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def allocate(self, size: int) -> Any:
        block = self._leases.memory.heap.allocate(size, self._leases.audience)
        # Whoever is of the arena's audience may be given it, unless it takes none at all.
        if not self._leases.may_get(block.segment.number):
            raise CannotTake
        return block

    def find(self, low: int, high: int) -> tuple[Block, int] | None:
        found = self._leases.memory.find_unwritten(low, high)
        if found is None or not self._leases.may_get(found.block.segment.number):
            return None
        return found

    def find_born(self, low: int, high: int) -> BornBlock | None:
        born = self._leases.memory.hold_born(low, high)
        return born if born is not None and self._leases.may_get(born.segment) else None


def _attachment(block: Block) -> bytes:
    segment, page, generation = block.key
    return ATTACHMENT.pack(segment, page, block.pages, generation)


def _rewritten(value: Any, depth: int, noted: list[Any], marks_bytes: bool) -> Any:
    """The value with what is long in its lists, tuples and dicts marked; the same where there is nothing."""
    cls = type(value)
    if cls in _BYTES:
        size = value.nbytes if cls is memoryview else len(value)
        return LargeBytes(value) if marks_bytes and size >= INLINE_ARRAY_BYTES else value
    if depth >= _DEEP_MAX:
        return value
    if cls is dict:
        items = {key: _rewritten(item, depth + 1, noted, marks_bytes) for key, item in value.items()}
        return items if any(items[key] is not value[key] for key in value) else value
    if cls is list and len(value) >= _RUN_MIN and all(map(is_array_type, set(map(type, value)))):
        noted += value
        return ArrayRun(len(noted) - len(value), len(value))
    if cls is list or cls is tuple:
        marked = [_rewritten(item, depth + 1, noted, marks_bytes) for item in value]
        return cls(marked) if any(new is not old for new, old in zip(marked, value, strict=True)) else value
    return value
