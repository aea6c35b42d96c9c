"""A peer's connection to the server: a channel that begins with a hello, and the descriptor lane beside it."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.credentials import check_server
from comfy_airlock.wire.credit import Credit
from comfy_airlock.wire.descriptor_lane import DescriptorLane, receive_with_descriptors
from comfy_airlock.wire.errors import AirlockError, Disconnected, ProtocolError
from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.frame import Frame, build_frame
from comfy_airlock.wire.lead import Stream

PROTOCOL_MIN = PROTOCOL_MAX = 1
SERVER_PEER = 0
SEGMENTS: Final = "segments"
"""The feature by which a peer can be given segments."""
_FEATURES: Final = ["line", "simplex", "credit", SEGMENTS]


class Connection(Channel):
    """The channel to the server, after its hello was accepted.

    Attributes:
        welcome: what the server answered.
        early: frames that came with the welcome, for :meth:`attach`.
        lane: where descriptors come; None where the server gives none.
    """

    def __init__(self, path: str, hello: dict[str, Any], codec: Codec, stream: Stream | None = None) -> None:
        """Connects, says hello and waits for the welcome.

        Raises:
            Disconnected: nobody listens at ``path``.
            Unauthorized: who listens there is another user.
            AirlockError: what the server says where it lets nobody in.
        """
        super().__init__([_connect(path)], codec, "the server", stream, is_direct=False)
        self.lane: DescriptorLane | None = None
        try:
            first, *self.early = self._introduce(hello)
            self.welcome: dict[str, Any] = self._expect_welcome(first)
            window = self.welcome.get("window")
            if isinstance(window, int):
                self.credit = Credit(window, self.lead)
        except BaseException:
            self._socket.close()
            if self.lane is not None:
                self.lane.close()
            raise

    def _introduce(self, hello: dict[str, Any]) -> list[Frame]:
        versions = {"min": PROTOCOL_MIN, "max": PROTOCOL_MAX}
        full = {"protocol": versions, "features": _FEATURES, "pid": os.getpid(), **hello}
        try:
            self._socket.sendall(build_frame(frames.HELLO, SERVER_PEER, 0, self.codec.encode(full)))
        except OSError as error:
            # What the server said before it closed the connection can still be read.
            if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
                raise Disconnected(f"the connection to the server broke: {error}") from error
        while True:
            received = self._receive_welcome()
            if received:
                return received

    def _receive_welcome(self) -> list[Frame]:
        """As :meth:`_receive`, and takes the lane that may come with the welcome's first byte."""
        try:
            count, descriptors = receive_with_descriptors(self._socket, self.receiver.assembler.target)
        except OSError as error:
            raise Disconnected(f"the connection to the server broke: {error}") from error
        if descriptors:
            self.lane = DescriptorLane(descriptors[0])
        if count == 0:
            raise Disconnected("the server closed the connection")
        return self.receiver.assembler.advance(count)

    def _expect_welcome(self, frame: Frame) -> dict[str, Any]:
        body = self.codec.decode(frame.body)
        if frame.kind == frames.ERROR:
            raise AirlockError.from_wire(body)
        if frame.kind != frames.WELCOME or not isinstance(body, dict):
            raise ProtocolError("the server's first frame is neither a welcome nor an error")
        return body

    def _dispatch(self, frame: Frame) -> None:
        if frame.kind == frames.CREDIT and self.credit is not None:
            self.credit.give(frame.peer, frame.call)
        else:
            super()._dispatch(frame)

    def _end(self, reason: AirlockError) -> None:
        super()._end(reason)
        if self.credit is not None:
            self.credit.end()

    def close(self) -> None:
        super().close()
        if self.lane is not None:
            self.lane.close()


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    held_by_this_process.add(connection)
    try:
        _reach(connection, path)
        check_server(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _reach(connection: socket.socket, path: str) -> None:
    try:
        connection.connect(path)
    except OSError as error:
        raise Disconnected(
            f"no server answers at {path}: {error.strerror}", hint="start one with `airlock serve`"
        ) from error
