"""The leases between this process and one other: what it was given, what it gave, and the way to it.

A receipt of a block that this process owns, or has a lease of already, becomes a hold on that, and is returned at once.
So whatever is on its way from whom, what keeps a block is here and at its owner, and nobody's end in between lets go of
it. Says nothing of bytes; :class:`comfy_airlock.memory.memory.Memory` has them.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from comfy_airlock.memory.blocks import Block, GoneBlock, HeldBlock
from comfy_airlock.memory.ledger import BlockKey, Gift, Ledger
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.memory.nursery import BornBlock
from comfy_airlock.wire.errors import AirlockError, BadRequest, Disconnected, ProtocolError, Unauthorized
from comfy_airlock.wire.frame import ATTACHMENT, RECLAIM, RETURN
from comfy_airlock.wire.limits import FRAME_ATTACHMENTS_MAX

if TYPE_CHECKING:
    from comfy_airlock.memory.memory import Memory

_BY_RELAY: Final = 1
"""The call of a RETURN that the server sends, for what it did not deliver."""

Send = Callable[[int, bytes], None]
"""Sends a frame of this kind and with these attachments to the other side."""


class Leases:
    """Both sides' leases, of one pair of processes.

    Attributes:
        life: which of the processes that there were is on the other side.
    """

    def __init__(self, memory: Memory, peer: int, audience: Callable[[], int | None], name: str, send: Send) -> None:
        """
        Args:
            peer: the number that frames to it are sent to.
            audience: tells whose segments it may be given; None in a worker, whose server knows.
            name: what it is called in errors.
            send: for what is about leases alone.
        """
        self.memory = memory
        self._audience = audience
        self.name = name
        self.life = 0
        self._peer = peer
        self._send = send
        self._lock = memory.lock
        self._ledger = Ledger()
        self._returns = bytearray()
        self._returning = threading.Lock()
        # Segments that the other side was given, and those that it may not be given.
        self._shared: set[int] = set()
        self._refused: set[int] = set()
        # Segments that came from there: the other side's own, in a host.
        self._met: set[int] = set()
        self.can_take = True
        memory.add(self)

    @property
    def audience(self) -> int | None:
        """Whose segments it may be given."""
        return self._audience()

    # What is given.

    def may_get(self, segment: int) -> bool:
        """Whether attachments of this segment may be sent, which the server is asked once; blocks for that.

        Raises:
            AirlockError: it may, and can't be given it now.
        """
        if segment in self._shared:
            return True
        if segment in self._refused or not self.can_take:
            return False
        try:
            self.memory.ask_server("share_segment", segment=segment, peer=self._peer)
        except Unauthorized:
            self._refused.add(segment)
            return False
        except BadRequest:
            # It takes no segments at all.
            self.can_take = False
            return False
        self._shared.add(segment)
        return True

    def decided(self, blocks: Iterable[Block | BornBlock]) -> list[Block]:
        """The blocks of a message that is about to be sent; those that torch made tensors in as they are, or copies.

        Raises:
            LimitExceeded: there is no memory for a copy.
        """
        return [self._decided(each) if isinstance(each, BornBlock) else each for each in blocks]

    def _decided(self, born: BornBlock) -> Block:
        block = self.memory.heap.send_born(born, self.audience)
        if not self.may_get(block.segment.number):
            raise Disconnected(f"{self.name} took memory when this was encoded, and takes none now")
        return block

    def give(self, blocks: Iterable[Block]) -> Gift:
        """Counts the leases of a message that is about to be sent."""
        with self._lock:
            return self._ledger.give((block.key, block.pages, block) for block in blocks)

    def settled(self, gift: Gift) -> None:
        """Its message is with the other side, and calls no process that is still to come."""
        with self._lock:
            self._ledger.settled(gift)

    def abandoned(self, gift: Gift) -> None:
        """Its message was given up, wherever it was by then."""
        with self._lock:
            self._ledger.abandoned(gift)

    def take_back(self, gift: Gift) -> None:
        """Its message was not sent."""
        with self._lock:
            kept = self._ledger.take_back(gift)
        # Outside the lock: what nobody keeps any more is put among what has ended.
        del kept

    def returned(self, attachments: bytes, call: int, *, is_direct: bool) -> None:
        """Takes a RETURN.

        Raises:
            ProtocolError: the other side returned what it does not hold; over the relay that is passed over, as the
                connection to the server is not this peer's to break.
        """
        kept: list[object] = []
        with self._lock:
            for segment, page, _, generation in ATTACHMENT.iter_unpack(attachments):
                key = BlockKey(segment, page, generation)
                if call == _BY_RELAY and not is_direct:
                    kept.append(self._ledger.undelivered(key))
                    continue
                # What was meant for the process before may come to the one after it.
                trusted = not self.memory.owns(segment) or not is_direct
                kept.append(self._ledger.returned(key, is_trusted=trusted))
        del kept
        # What is free again is there for the tensor that is made next: it may be for the call that brings this.
        self.memory.settle()

    # What was given.

    def receive(self, attachments: bytes, *, is_direct: bool) -> list[Block | GoneBlock]:
        """The blocks that a message brings. Called on the thread that reads.

        Args:
            is_direct: whether nobody stands between, who has looked at what is named.

        Raises:
            ProtocolError: the other side names what it can't have a lease of.
        """
        blocks: list[Block | GoneBlock] = []
        extra = bytearray()
        with self._lock:
            for attachment in struct.iter_unpack("16s", attachments):
                try:
                    blocks.append(self._received(attachment[0], extra))
                except AirlockError as error:
                    # Over the relay the server has looked, and its connection is not this peer's to break; without
                    # room for a descriptor what brings it fails, and nothing else.
                    if is_direct and isinstance(error, ProtocolError):
                        raise
                    # Nobody can use it here, and so it is returned.
                    extra += attachment[0]
                    number, page, _, generation = ATTACHMENT.unpack(attachment[0])
                    blocks.append(GoneBlock(BlockKey(number, page, generation), error))
            self._returns += extra
        if extra:
            self.memory.wake()
        return blocks

    def _received(self, attachment: bytes, extra: bytearray) -> Block | GoneBlock:
        number, page, pages, generation = ATTACHMENT.unpack(attachment)
        segment = self.memory.segment_given(number)
        key = BlockKey(number, page, generation)
        if segment is None:
            raise ProtocolError(f"segment {number} was named, which this process was not given")
        if pages == 0 or page + pages > segment.pages:
            raise ProtocolError(
                f"pages {page} to {page + pages} of segment {number} were named, which has {segment.pages}"
            )
        block = self.memory.kept.get(key)
        if block is not None and pages <= block.pages:
            extra += attachment
            return block
        if self.memory.owns(number):
            # Whoever sends it had no lease of it, or is gone, and what it said before comes after that was known.
            extra += attachment
            return GoneBlock(key)
        self._met.add(number)
        block = HeldBlock(self, segment, key, pages, self.memory.ended)
        self.memory.kept[key] = block
        return block

    def dropped(self, key: BlockKey, pages: int, life: int) -> None:
        """A lease that was given is needed no more; it is returned with what is sent next. Holds the lock."""
        if life == self.life:
            self._returns += ATTACHMENT.pack(key.segment, key.page, pages, key.generation)

    def may_return(self) -> bool:
        """Takes in what has ended here; whether something is to be returned after that."""
        self.memory.settle()
        return bool(self._returns)

    def take_returns(self) -> bytes:
        """What is to be returned, for a message that takes it along; no more than a frame holds."""
        with self._lock:
            end = FRAME_ATTACHMENTS_MAX * ATTACHMENT.size
            returns, self._returns = bytes(self._returns[:end]), self._returns[end:]
        return returns

    def send_returns(self) -> None:
        """Returns what is to be returned."""
        with self._returning:
            with self._lock:
                returns, self._returns = bytes(self._returns), bytearray()
            for chunk in _chunks(returns):
                try:
                    self._send(RETURN, chunk)
                except AirlockError:
                    return  # It is gone, and its leases with it.

    # What becomes of it.

    def reclaim(self) -> bool:
        """Asks the other side to return what nothing needs. False where it holds nothing."""
        if not self._ledger.count:
            return False
        try:
            self._send(RECLAIM, b"")
        except AirlockError:
            return False
        return True

    @property
    def given_bytes(self) -> int:
        """How much the other side holds."""
        return self._ledger.pages * PAGE_BYTES

    @property
    def given(self) -> int:
        """How many blocks the other side holds."""
        return self._ledger.count

    def end(self, *, is_last: bool = False) -> None:
        """The other process is gone, or another is in its place. What it gave stays readable as long as it is kept.

        Args:
            is_last: whether no other comes, for which calls could wait.
        """
        with self._lock:
            self.life += 1
            kept = self._ledger.close() if is_last else self._ledger.end()
            self._returns.clear()
            self._shared.clear()
            self._refused.clear()
            self.can_take = True
            met, self._met = self._met, set()
        del kept
        self.memory.orphaned(met)

    def forget(self, segment: int) -> None:
        """A segment is no more. Holds the lock."""
        self._shared.discard(segment)
        self._refused.discard(segment)
        self._met.discard(segment)


def _chunks(attachments: bytes) -> Iterator[bytes]:
    step = FRAME_ATTACHMENTS_MAX * ATTACHMENT.size
    return (attachments[at : at + step] for at in range(0, len(attachments), step))
