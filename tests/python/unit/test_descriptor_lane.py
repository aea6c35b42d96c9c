"""What a peer finds on its descriptor lane: by what it is and its number, in any order, and nothing left open."""

from __future__ import annotations

import array as arrays
import os
import resource
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_airlock.wire.descriptor_lane import LINE, SEGMENT, DescriptorLane
from comfy_airlock.wire.errors import LimitExceeded, ProtocolError


@pytest.fixture
def lane() -> Iterator[tuple[DescriptorLane, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lane = DescriptorLane(near.detach())
    yield lane, far
    lane.close()
    far.close()


def pass_one(far: socket.socket, what: int, number: int, name: bytes = b"") -> int:
    """Passes a pipe's end; returns its inode."""
    end, other = os.pipe()
    os.close(other)
    socket.send_fds(far, [name or struct.pack("<II", what, number)], [end])
    inode = os.fstat(end).st_ino
    os.close(end)
    return inode


def inode_of(descriptor: int | None) -> int:
    assert descriptor is not None
    inode = os.fstat(descriptor).st_ino
    os.close(descriptor)
    return inode


def test_descriptors_are_found_by_what_they_are_in_any_order(lane: tuple[DescriptorLane, socket.socket]) -> None:
    end, far = lane
    passed = [pass_one(far, *each) for each in ((LINE, 1), (SEGMENT, 1), (SEGMENT, 2), (LINE, 1))]
    assert end.find(SEGMENT, 3) is None
    assert inode_of(end.find(SEGMENT, 2)) == passed[2]
    assert inode_of(end.take(SEGMENT, 1)) == passed[1]
    assert inode_of(end.take(LINE, 1)) == passed[0]
    assert inode_of(end.take(LINE, 1)) == passed[3]
    with pytest.raises(ProtocolError, match="named segment 2 and passed no descriptor"):
        end.take(SEGMENT, 2)


def pass_sockets(far: socket.socket, what: int, number: int, count: int = 2) -> None:
    """Passes an end of each of so many socket pairs; the other ends are closed."""
    ends, others = zip(*(socket.socketpair() for _ in range(count)), strict=True)
    socket.send_fds(far, [struct.pack("<II", what, number)], [each.fileno() for each in ends])
    for each in (*ends, *others):
        each.close()


def test_a_line_is_one_socket_or_two(lane: tuple[DescriptorLane, socket.socket]) -> None:
    end, far = lane
    for count in (2, 1):
        pass_sockets(far, LINE, 1, count)
    for count in (2, 1):
        taken = end.take_line(1)
        assert len(taken) == count
        for each in taken:
            each.close()
    with pytest.raises(ProtocolError, match="named line 1 and passed no descriptor"):
        end.take_line(1)


def test_what_is_passed_in_twos_and_not_asked_for_is_closed(lane: tuple[DescriptorLane, socket.socket]) -> None:
    end, far = lane
    before = len(os.listdir("/proc/self/fd"))
    for number in (1, 2, 3):
        pass_sockets(far, LINE, number)
    pass_sockets(far, SEGMENT, 1)
    descriptor = end.find(SEGMENT, 1)
    assert descriptor is not None
    os.close(descriptor)
    end.discard(LINE, 2)
    assert len(os.listdir("/proc/self/fd")) == before + 4
    end.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_where_there_is_room_for_one_of_two_neither_is_kept(lane: tuple[DescriptorLane, socket.socket]) -> None:
    end, far = lane
    ends = [socket.socketpair() for _ in range(2)]
    socket.send_fds(far, [struct.pack("<II", LINE, 1)], [each.fileno() for each, _ in ends])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        # All numbers below the limit are taken but one.
        highest = max(map(int, os.listdir("/proc/self/fd"))) + 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            os.close(held.pop())
        with pytest.raises(LimitExceeded, match="cannot open any more descriptors"):
            end.take_line(1)
        # The one that there was room for is free again.
        held.append(os.dup(0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in held:
            os.close(each)
    for both in ends:
        for each in both:
            each.close()


def test_a_descriptor_under_half_a_name_breaks_the_protocol_and_is_closed(
    lane: tuple[DescriptorLane, socket.socket],
) -> None:
    end, far = lane
    pass_one(far, 0, 0, b"abc")
    with pytest.raises(ProtocolError, match="3 bytes"):
        end.find(SEGMENT, 1)


def test_a_descriptor_that_there_is_no_room_for_is_missed_by_who_asks_for_it_alone(
    lane: tuple[DescriptorLane, socket.socket],
) -> None:
    end, far = lane
    first, _, last = (pass_one(far, SEGMENT, number) for number in (1, 2, 3))
    real, count = socket.socket.recvmsg_into, 0

    def receive(self: socket.socket, *args: Any) -> Any:
        nonlocal count
        size, ancillary, flags, address = real(self, *args)
        count += 1
        if count == 2:
            for _, _, data in ancillary:
                for each in arrays.array("i", data):
                    os.close(each)
            return size, [], flags | socket.MSG_CTRUNC, address
        return size, ancillary, flags, address

    class Link(socket.socket):
        recvmsg_into = receive  # type: ignore[assignment]

    end._socket = Link(fileno=end._socket.detach())
    end._socket.setblocking(False)
    assert inode_of(end.find(SEGMENT, 3)) == last
    for _ in range(2):
        with pytest.raises(LimitExceeded, match="cannot open any more descriptors"):
            end.find(SEGMENT, 2)
    # Once it is said to be gone nobody misses it.
    end.discard(SEGMENT, 2)
    assert end.find(SEGMENT, 2) is None
    assert inode_of(end.find(SEGMENT, 1)) == first


def test_a_descriptor_that_nobody_will_ask_for_is_closed(lane: tuple[DescriptorLane, socket.socket]) -> None:
    end, far = lane
    before = len(os.listdir("/proc/self/fd"))
    kept = [pass_one(far, SEGMENT, number) for number in (1, 2)]
    end.discard(SEGMENT, 1)
    end.discard(SEGMENT, 3)
    assert inode_of(end.take(SEGMENT, 2)) == kept[1]
    assert end.find(SEGMENT, 1) is None
    assert len(os.listdir("/proc/self/fd")) == before
