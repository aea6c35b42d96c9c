"""A peer's descriptor lane: where the server passes descriptors, one message each, beside the frames that name them.

Twin of ``src/transport/descriptor-lane.ts``. The server puts a descriptor here before it sends the frame that names it,
so whoever has read the frame finds the descriptor without waiting.
"""

from __future__ import annotations

import array
import socket
import struct
from typing import Final

from comfy_airlock.wire.errors import LimitExceeded, ProtocolError
from comfy_airlock.wire.forking import held_by_this_process

_MESSAGE: Final = struct.Struct("<II")
_LINE: Final = 1
_CONTROL_BYTES: Final = socket.CMSG_SPACE(array.array("i").itemsize)


def receive_with_descriptor(link: socket.socket, buffer: memoryview) -> tuple[int, int | None]:
    """Reads into ``buffer``; returns how many bytes came, and the descriptor that came with them, if one did.

    Raises:
        LimitExceeded: this process has no room for one more descriptor.
    """
    count, ancillary, flags, _ = link.recvmsg_into([buffer], _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if flags & socket.MSG_CTRUNC:
        raise LimitExceeded(
            "this process cannot open any more descriptors, and was to be given one",
            hint="raise the limit (ulimit -n), or find what leaves files open",
        )
    return count, descriptors[0] if descriptors else None


class DescriptorLane:
    """This peer's end of its lane."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        held_by_this_process.add(self._socket)

    def take(self, number: int) -> socket.socket:
        """The socket that the server passed under this number, just before the frame that named it.

        Raises:
            ProtocolError: it is not there.
            LimitExceeded: this process has no room for one more descriptor.
        """
        self._socket.setblocking(False)
        buffer = memoryview(bytearray(_MESSAGE.size))
        try:
            count, descriptor = receive_with_descriptor(self._socket, buffer)
        except BlockingIOError:
            count, descriptor = 0, None
        if descriptor is None:
            raise ProtocolError(f"the server named descriptor {number} and passed none")
        link = socket.socket(fileno=descriptor)
        if count != _MESSAGE.size or _MESSAGE.unpack(buffer) != (_LINE, number):
            link.close()
            raise ProtocolError(f"the server named descriptor {number} and passed another")
        return link

    def close(self) -> None:
        """Ends the lane."""
        self._socket.close()
