"""The floor: a bare loop over one socket pair with Airlock's own codec, no threads, no numbers checked.

`python socket_pair.py calls COUNT`.
"""

import json
import socket
import struct
import subprocess
import sys
from typing import Any

from latency import latency

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


def work(descriptor: int) -> None:
    """Answers each body with its first argument."""
    link, codec = Link(socket.socket(fileno=descriptor)), Codec()
    while (body := link.receive()) is not None:
        _, args, _ = codec.decode(body)
        link.send(codec.encode((args[0],)))


def main() -> None:
    """Echoes the payloads through a worker of its own."""
    near, far = socket.socketpair()
    command = [sys.executable, __file__, "worker", str(far.fileno())]
    worker = subprocess.Popen(command, pass_fds=[far.fileno()])
    far.close()
    link, codec = Link(near), Codec()

    def call(value: Any) -> Any:
        link.send(codec.encode(["run", [value], {}]))
        body = link.receive()
        assert body is not None
        return codec.decode(body)[0]

    print(json.dumps(latency(call, int(sys.argv[2]))))
    near.close()
    worker.wait()


if __name__ == "__main__":
    work(int(sys.argv[2])) if sys.argv[1] == "worker" else main()
