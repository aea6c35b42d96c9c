"""A server that follows a script: one connection, on a thread of its own."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from comfy_airlock import Airlock
from comfy_airlock.calls.pair import Pair
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.frame import Frame, FrameAssembler, build_frame

PACK = 7
"""A pack's number, whoever opened it."""

OPENED = {
    "pack": PACK,
    "workers": [PACK],
    "fresh_process": False,
    "nodes": {},
    "name": "ink",
    "folder": "/ink",
    "warnings": [],
}
"""What a server answers to ``open`` for a pack of one worker."""

WELCOME = {"protocol": 1, "pack": {"name": "ink", "folder": "/packs/ink"}}


def pair_of(airlock: Airlock) -> Pair:
    """The pair with the worker of :data:`PACK`, which a scripted server need not have opened."""
    return airlock._lines.pack(PACK, "ink").pair


class Peer:
    """The server's end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.codec = Codec()
        self._connection = connection
        self._assembler = FrameAssembler()
        self._read: list[Frame] = []

    def read(self) -> Frame:
        """The next frame; EOFError where the client is gone."""
        while not self._read:
            count = self._connection.recv_into(self._assembler.target)
            if count == 0:
                raise EOFError
            self._read += self._assembler.advance(count)
        return self._read.pop(0)

    def read_bytes(self, count: int) -> bytes:
        """At most so many bytes as they come, of no frame that :meth:`read` began; none where the client is gone."""
        return self._connection.recv(count)

    def send(self, kind: int, call: int, body: Any, peer: int = 0) -> None:
        self.send_bytes(build_frame(kind, peer, call, self.codec.encode(body)))

    def send_bytes(self, data: bytes) -> None:
        self._connection.sendall(data)

    def welcome(self) -> Frame:
        """Reads the hello and lets the client in."""
        hello = self.read()
        self.send(frames.WELCOME, 0, WELCOME)
        return hello

    def welcome_with_lane(self) -> socket.socket:
        """As :meth:`welcome`, with a descriptor lane; returns the server's end of that."""
        self.read()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        welcome = build_frame(frames.WELCOME, 0, 0, self.codec.encode({**WELCOME, "features": ["line"]}))
        socket.send_fds(self._connection, [welcome], [far.fileno()])
        far.close()
        return near

    def line(self, lane: socket.socket, pack: int, number: int, names: int | None = None) -> Peer:
        """Makes a line to ``pack`` and announces it; ``names`` is what the descriptor is called on the lane."""
        near, far = socket.socketpair()
        socket.send_fds(lane, [struct.pack("<II", 1, number if names is None else names)], [far.fileno()])
        far.close()
        self.send_bytes(build_frame(frames.LINE, pack, number))
        return Peer(near)

    def hang_up(self) -> None:
        """Closes this end."""
        self._connection.close()

    def result(self, call: Frame, value: Any) -> None:
        self.send(frames.RESULT, call.call, value, call.peer)


class ScriptedServer:
    """Accepts one client at ``path`` and plays ``script`` to it; then that connection is closed."""

    def __init__(self, folder: Path, script: Callable[[Peer], None]) -> None:
        self.path = str(folder / "s")
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="airlock-test-server")
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            try:
                self._script(Peer(connection))
            except (EOFError, ConnectionError):
                pass  # The client may leave whenever it likes.
            except BaseException as error:
                self._error = error

    def join(self, seconds: float) -> None:
        """Waits until the script is through."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            # Nobody may have connected: the thread is not to wait for ever.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as poke:
                poke.setblocking(False)
                poke.connect_ex(self.path)
        self._thread.join(20)
        self._listener.close()
        assert kind is not None or not self._thread.is_alive()
        if self._error is not None:
            raise self._error
