"""The floor: a bare loop over one socket pair with Airlock's own codec, no threads, no numbers checked; or no codec.

`python socket_pair.py calls PARAMETERS [bytes]`; with *bytes*, the same bytes go to and fro and mean nothing.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from typing import Any

from harness import Contender, run
from harness.calls import PAYLOADS

from comfy_airlock.wire.codec import Codec

_HEADER = struct.Struct("<I")


class Link:
    """Length and body, one after the other."""

    def __init__(self, link: socket.socket) -> None:
        self._socket = link
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)

    def send(self, body: bytes) -> None:
        self._socket.sendall(_HEADER.pack(len(body)) + body)

    def receive(self) -> memoryview | None:
        """The next body; None once the other side has closed. One frame is under way at a time."""
        have = 0
        while have < 4 or have < 4 + _HEADER.unpack_from(self._buffer)[0]:
            count = self._socket.recv_into(self._view[have:])
            if count == 0:
                return None
            have += count
        return self._view[4:have]


class SocketPair(Contender):
    """A call is one message there, and one back."""

    def __init__(self, how: str = "codec") -> None:
        self._is_bytes = how == "bytes"

    def start(self, workers: int, with_torch: bool) -> None:
        near, far = socket.socketpair()
        command = [sys.executable, __file__, "worker", str(far.fileno()), "bytes" if self._is_bytes else "codec"]
        self._worker = subprocess.Popen(command, pass_fds=[far.fileno()])
        far.close()
        self._near, self._link, self._codec = near, Link(near), Codec()
        self._encoded = {id(value): self._codec.encode(["run", [value], {}]) for value in PAYLOADS.values()}

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        value = values["value"]
        if self._is_bytes:
            self._link.send(self._encoded[id(value)])
            self._link.receive()
            return value
        self._link.send(self._codec.encode(["run", [value], {}]))
        body = self._link.receive()
        assert body is not None
        return self._codec.decode(body)[0]

    def stop(self) -> None:
        if hasattr(self, "_near"):
            self._near.close()
            self._worker.wait()


def work(descriptor: int, *, is_bytes: bool) -> None:
    """Answers each body with its first argument."""
    link, codec = Link(socket.socket(fileno=descriptor)), Codec()
    while (body := link.receive()) is not None:
        if is_bytes:
            link.send(bytes(body))
        else:
            _, args, _ = codec.decode(body)
            link.send(codec.encode((args[0],)))


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(int(sys.argv[2]), is_bytes=sys.argv[3] == "bytes")
    else:
        run(SocketPair)
