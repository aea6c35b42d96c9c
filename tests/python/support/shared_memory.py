"""Two processes' memory within one, and what of the server stands between: real segments, real mappings, no sockets."""

from __future__ import annotations

import fcntl
import gc
import itertools
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from comfy_airlock.calls.arrays import Arrays, PackedArrays
from comfy_airlock.memory.leases import Leases
from comfy_airlock.memory.memory import Memory
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.descriptor_lane import SEGMENT
from comfy_airlock.wire.errors import LimitExceeded, ProtocolError, Unauthorized
from comfy_airlock.wire.frame import RETURN
from comfy_airlock.wire.laden import LadenBody

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | 0x10
"""The last is F_SEAL_FUTURE_WRITE: writing is for who has mapped it before."""


def make_memfd(size: int) -> int:
    """Memory to share, of so many bytes, named as no real segment is: tests that leave one open fail."""
    descriptor = os.memfd_create("test-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    return descriptor


def seal(descriptor: int) -> None:
    """Has whoever has mapped it be the only one who can write to it, as the server does."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


class Lane:
    """Where descriptors are passed."""

    def __init__(self) -> None:
        self.passed: dict[tuple[int, int], int] = {}

    def find(self, what: int, number: int) -> int | None:
        return self.passed.pop((what, number), None)

    def take(self, what: int, number: int) -> int:
        descriptor = self.find(what, number)
        if descriptor is None:
            raise ProtocolError(f"{number} was not passed")
        return descriptor

    def discard(self, what: int, number: int) -> None:
        descriptor = self.find(what, number)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        for descriptor in self.passed.values():
            os.close(descriptor)
        self.passed.clear()


class Peer:
    """One process: its memory, and what it has to do with the other."""

    def __init__(self, world: World, name: str) -> None:
        self.lane = Lane()
        self.other: Peer = self
        self._world = world
        #: The seconds after each of which it wants to look for what has been idle for long.
        self.later: list[float] = []
        self.memory = Memory(self.lane, self._ask, lambda: None, self.later.append)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        self.leases = Leases(self.memory, 1, lambda: self.audience, name, self._send)
        self.arrays = Arrays(lambda: self.leases)
        self.codec = Codec(arrays=self.arrays)
        self.asked: list[str] = []
        #: Whose segments the other side may be given.
        self.audience: int | None = None

    def _ask(self, method: str, **keywords: Any) -> Any:
        self.asked.append(method)
        return getattr(self._world, method)(self, **keywords)

    def _send(self, kind: int, attachments: bytes) -> None:
        if kind == RETURN:
            self.other.leases.returned(attachments, 0, is_direct=True)
        else:
            self.other.memory.reclaimed()
            self.other.memory.tidy()

    def encode(self, value: Any) -> tuple[bytes, PackedArrays]:
        """A message as it is sent: its body, and its blocks."""
        body = self.codec.encode(value)
        return body, self.arrays.settle() or PackedArrays()

    def decode(self, body: bytes, attachments: bytes) -> Any:
        """What has come."""
        laden = LadenBody(body)
        laden.has_arrays = body[:1] == b"\x92"
        self.arrays.receive(laden, attachments, is_direct=True)
        return self.codec.decode(laden)

    def send(self, value: Any) -> Any:
        """What arrives at the other side, of a list or tuple of arrays."""
        body, packed = self.encode({"value": value})
        packed.settled()
        return self.other.decode(body, packed.attachments)["value"]

    def tidy(self) -> None:
        """Returns what is garbage here."""
        gc.collect()
        self.memory.tidy()


class World:
    """The server's part."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._segments: dict[int, int] = {}
        self._owners: dict[int, Peer] = {}
        self.bytes_max = 1 << 40
        self.refuses_to_share = False
        #: Of the library by which torch makes tensors in blocks.
        self.nursery_path: str | None = None
        self.near, self.far = Peer(self, "near"), Peer(self, "far")
        self.near.other, self.far.other = self.far, self.near

    def nursery(self, _: Peer, /) -> dict[str, str | None]:
        return {"path": self.nursery_path}

    def make_segment(self, peer: Peer, /, bytes: int, audience: int | None = None) -> dict[str, int]:
        del audience
        owned = sum(os.fstat(self._segments[each]).st_size for each, owner in self._owners.items() if owner is peer)
        if owned + bytes > self.bytes_max:
            raise LimitExceeded(f"{bytes} bytes were asked for, of {self.bytes_max} allowed")
        number = next(self._numbers)
        descriptor = self._segments[number] = make_memfd(bytes)
        self._owners[number] = peer
        peer.lane.passed[SEGMENT, number] = os.dup(descriptor)
        return {"segment": number}

    def seal_segment(self, peer: Peer, /, segment: int) -> None:
        assert self._owners[segment] is peer
        seal(self._segments[segment])

    def share_segment(self, sender: Peer, /, segment: int, peer: int) -> None:
        del peer
        if self.refuses_to_share:
            raise Unauthorized("it is not of the audience")
        other = sender.other
        if other.memory.segment(segment) is None:
            other.lane.passed[SEGMENT, segment] = os.dup(self._segments[segment])

    def drop_segment(self, peer: Peer, /, segment: int) -> None:
        if self._owners.get(segment) is peer:
            del self._owners[segment]
            os.close(self._segments.pop(segment))
            peer.other.memory.gone(segment)

    @property
    def count(self) -> int:
        """How many segments there are."""
        return len(self._segments)

    def close(self) -> None:
        for peer in (self.near, self.far):
            peer.memory.close()
        for peer in (self.near, self.far):
            peer.tidy()
            peer.lane.close()
        for descriptor in self._segments.values():
            os.close(descriptor)


@contextmanager
def two_processes() -> Generator[World]:
    """Two that share memory."""
    world = World()
    try:
        yield world
    finally:
        world.close()
