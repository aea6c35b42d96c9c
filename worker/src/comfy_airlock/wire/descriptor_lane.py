"""A peer's descriptor lane: where the server passes descriptors, one message for each thing that a frame names.

Twin of ``src/transport/descriptor-lane.ts``. The server puts a descriptor here before it sends the frame that names it,
so whoever has read the frame finds the descriptor without waiting. Frames of different streams may be read in another
order than descriptors come, so what was not asked for yet is kept.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
from collections import deque
from itertools import chain
from typing import Final

from comfy_airlock.wire.errors import LimitExceeded, ProtocolError
from comfy_airlock.wire.forking import held_by_this_process

LINE: Final = 1
"""What descriptors are: a line's end, under the line's number. One that is read and written to, or two: the one that is
read, and the one that is written to."""
SEGMENT: Final = 2
"""A segment, under the segment's number."""

_NAMES: Final = {LINE: "line", SEGMENT: "segment"}
_NAME: Final = struct.Struct("<II")
_CONTROL_BYTES: Final = socket.CMSG_SPACE(2 * array.array("i").itemsize)


def receive_with_descriptors(link: socket.socket, buffer: memoryview) -> tuple[int, list[int]]:
    """Reads into ``buffer``; returns how many bytes came, and the descriptors that came with them: none, one or two.

    Raises:
        LimitExceeded: this process has no room for as many. Their name is in ``buffer`` all the same.
    """
    count, ancillary, flags, _ = link.recvmsg_into([buffer], _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if flags & socket.MSG_CTRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise LimitExceeded(
            "this process cannot open any more descriptors, and was to be given some",
            hint="raise the limit (ulimit -n), or find what leaves files open",
        )
    return count, list(descriptors)


class DescriptorLane:
    """This peer's end of its lane. Any thread may ask it."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._mutex = threading.Lock()
        # In the order in which they came: lines of several packs may have one number.
        self._passed: dict[tuple[int, int], deque[list[int]]] = {}
        # Those that this process had no room for.
        self._lost: dict[tuple[int, int], LimitExceeded] = {}
        held_by_this_process.add(self)

    def find(self, what: int, number: int) -> int | None:
        """The descriptor that the server passed under this number, for the caller to close; None where it passed none.

        Raises:
            LimitExceeded: this process has no room for one more descriptor.
        """
        found = self._find(what, number)
        if found is None:
            return None
        descriptor, *others = found
        for each in others:
            os.close(each)
        return descriptor

    def _find(self, what: int, number: int) -> list[int] | None:
        with self._mutex:
            name = what, number
            if name not in self._passed:
                self._take_in()
            passed = self._passed.get(name)
            if passed is None:
                if name in self._lost:
                    raise self._lost[name].fresh()
                return None
            descriptors = passed.popleft()
            if not passed:
                del self._passed[name]
            return descriptors

    def take(self, what: int, number: int) -> int:
        """As :meth:`find`, where it must be.

        Raises:
            ProtocolError: it is not there.
        """
        descriptor = self.find(what, number)
        if descriptor is None:
            raise self._missing(what, number)
        return descriptor

    def take_line(self, number: int) -> list[socket.socket]:
        """The end of a line of this number: one socket for both directions, or one to read and one to write to.

        Raises:
            ProtocolError: it is not there.
            LimitExceeded: as :meth:`find`.
        """
        descriptors = self._find(LINE, number)
        if descriptors is None:
            raise self._missing(LINE, number)
        return [socket.socket(fileno=each) for each in descriptors]

    def _missing(self, what: int, number: int) -> ProtocolError:
        return ProtocolError(f"the server named {_NAMES[what]} {number} and passed no descriptor of it")

    def discard(self, what: int, number: int) -> None:
        """Nobody will ask for what was passed under this number: it is closed, if it was not taken."""
        name = what, number
        with self._mutex:
            self._take_in()
            self._lost.pop(name, None)
            for descriptor in chain.from_iterable(self._passed.pop(name, ())):
                os.close(descriptor)

    def _take_in(self) -> None:
        """Reads what has come."""
        buffer = memoryview(bytearray(_NAME.size))
        while True:
            try:
                count, descriptors = receive_with_descriptors(self._socket, buffer)
            except BlockingIOError:
                return
            except LimitExceeded as error:
                # Whoever asks for that one is told, now and later, and all others get theirs.
                what, number = _NAME.unpack(buffer)
                self._lost[what, number] = error
                continue
            except OSError:
                return  # It was closed: nothing more comes.
            if not descriptors:
                return
            if count != _NAME.size:
                for descriptor in descriptors:
                    os.close(descriptor)
                raise ProtocolError(f"the server passed a descriptor under a name of {count} bytes")
            what, number = _NAME.unpack(buffer)
            self._passed.setdefault((what, number), deque()).append(descriptors)

    def close(self) -> None:
        """Ends the lane."""
        self._socket.close()
        passed, self._passed = self._passed, {}
        for descriptors in chain.from_iterable(passed.values()):
            for descriptor in descriptors:
                os.close(descriptor)
