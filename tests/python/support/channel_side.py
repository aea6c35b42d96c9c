"""One side of a channel, and the bare socket at the other end of it, for what happens step by step."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.express import asking
from comfy_airlock.wire.frame import Body, Frame, FrameAssembler
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Seat
from comfy_airlock.wire.recipients import PendingCall
from feeding import feed

NIL = b"\xc0"
SECONDS_MAX = 20


class Asker:
    """A thread that waits, as far as a channel knows it."""

    def __init__(self) -> None:
        self.number = 0
        self.taken_care_of = False
        self.was_unsent = False
        self.may_be_sent = False
        self.told: list[Frame | AirlockError] = []

    def answered(self, frame: Frame) -> None:
        self.told.append(frame)

    def asked(self, channel: Channel, peer: int, number: int) -> None:
        self.number = number

    def progressed(self, frame: Frame) -> None:
        raise AssertionError(frame)

    def nested(self, call: IncomingCall) -> None:
        raise AssertionError(call)

    def failed(self, error: AirlockError) -> None:
        self.told.append(error)


class InterruptedLink:
    """A socket whose next receiving, or sending, is interrupted before anything happens."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.interrupts: set[str] = set()

    def _maybe(self, what: str) -> None:
        if what in self.interrupts:
            self.interrupts.remove(what)
            raise KeyboardInterrupt

    def recv_into(self, *args: Any) -> int:
        self._maybe("recv")
        return self._link.recv_into(*args)

    def send(self, data: bytes, *flags: int) -> int:
        self._maybe("send")
        if "half" in self.interrupts:
            self.interrupts = {"send"}
            return self._link.send(data[: len(data) // 2], *flags)
        return self._link.send(data, *flags)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


class Side:
    """A channel, who owns it, and the socket at the other end of it."""

    def __init__(self, *, is_two: bool = False) -> None:
        near, self.far = socket.socketpair()
        self.far_reads = self.far
        self.far.settimeout(SECONDS_MAX)
        self.link = InterruptedLink(near)
        links: list[Any] = [self.link]
        if is_two:
            writes, self.far_reads = socket.socketpair()
            links.append(InterruptedLink(writes))
        self.channel = Channel(links, Codec(), "the other side")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        self.calls: list[IncomingCall] = []
        self.others: list[Frame] = []
        self.reason: AirlockError | None = None
        self.on_called: Callable[[], None] = lambda: None
        self.channel.attach(self, [])

    def called(self, call: IncomingCall) -> None:
        self.calls.append(call)
        self.on_called()

    def laden(self, frame: Any) -> Any:
        raise AssertionError(frame)

    def gave_up(self) -> None: ...

    def received(self, frame: Frame) -> None:
        self.others.append(frame)

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        self.reason = reason
        for each in unanswered:
            each.failed(reason)

    def ask(self, asker: Asker) -> Body | None:
        return asking(self.channel, 7)(asker, NIL)

    def take(self) -> IncomingCall | None:
        return self.channel.take(Seat(), [threading.get_ident()])

    def send(self, *frames: bytes) -> None:
        self.far.sendall(b"".join(frames))

    def sent(self) -> list[Frame]:
        """What the channel has sent, all of which is there."""
        frames: list[Frame] = []
        assembler = FrameAssembler()
        self.far_reads.setblocking(False)
        try:
            while data := self.far_reads.recv(65536):
                frames += feed(assembler, [data])
        except BlockingIOError:
            pass
        return frames

    def next_number(self) -> int:
        """What the channel's next call is known by; asking uses none up."""
        return int(repr(self.channel.made.numbers).removeprefix("count(").removesuffix(")"))

    def close(self) -> None:
        self.channel.close()
        self.far.close()
        self.far_reads.close()
