"""The lines of one host: for each pack whose worker can take one, a channel that leads straight to it.

The server makes them and says so; calls go over a line whenever there is one, and over the relay otherwise. When a line
ends, its worker has: the server knows how it died, and is asked before the calls under way fail. No call is sent twice;
one of which nothing was sent yet goes over the relay.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from comfy_airlock.host.waiting import Deadline
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.channel import Channel, PendingCall, Unsent, fail_all
from comfy_airlock.wire.connection import SERVER_PEER, Connection
from comfy_airlock.wire.errors import AirlockError, Disconnected
from comfy_airlock.wire.frame import Frame
from comfy_airlock.wire.lead import Lead

_KEEPER_NAME: Final = "airlock-line"


class Sent(NamedTuple):
    """A call that is on its way.

    Attributes:
        deadline: what its caller has to keep itself; the server keeps that of a call over the relay.
    """

    channel: Channel
    peer: int
    number: int
    deadline: Deadline | None

    @property
    def lead(self) -> Lead:
        return self.channel.lead

    def cancel(self) -> None:
        """Gives it up, if it has no answer yet; a channel that is gone has cancelled it already."""
        try:
            self.channel.cancel(self.peer, self.number)
        except Disconnected:
            pass


class Lines:
    """The owner of a host's connection: it is called by nobody yet, so what is not an answer tells of a line."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lines: dict[int, Channel] = {}
        self._is_closed = False

    def call(
        self, pending: PendingCall, peer: int, body: bytes, timeout: float | None = None, pack: str | None = None
    ) -> Sent:
        """Sends a call over the line to the pack's worker, where there is one now, and over the relay otherwise.

        Args:
            timeout: seconds until its deadline.
            pack: the pack's name, for the error when that is over.

        Raises:
            AirlockError: why it can't be sent.
        """
        deadline_ms = None if timeout is None else timeout * 1000
        line = self._lines.get(peer)
        if line is not None:
            try:
                number = line.call(pending, peer, body, deadline_ms)
                return Sent(line, peer, number, None if timeout is None else Deadline(timeout, pack))
            except Unsent:
                pass  # It ended a moment ago, and its worker with it: the relay starts a fresh one.
        return Sent(self._connection, peer, self._connection.call(pending, peer, body, deadline_ms), None)

    def received(self, frame: Frame) -> None:
        """Takes the line that the server announces. Called on the thread that reads the connection."""
        lane = self._connection.lane
        if frame.kind != frames.LINE or lane is None:
            return
        pack, number = frame.peer, frame.call
        line = Channel(lane.take(number), self._connection.codec, "the worker")
        line.attach(_Line(self, line, pack, number), [])
        line.keep(_KEEPER_NAME)
        self._lines[pack] = line
        if self._is_closed:
            line.close()

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        """The connection ended; the server ends the workers with it, and so the lines."""
        fail_all(unanswered, reason)

    def line_ended(self, line: Channel, pack: int, number: int, unanswered: list[PendingCall]) -> None:
        """Asks the server why, where somebody waits to be told. Called on the thread that read the line."""
        if self._lines.get(pack) is line:
            del self._lines[pack]
        line.close()
        if unanswered:
            _Inquest(self._connection, unanswered).begin(pack, number)

    def close(self) -> None:
        """Ends all lines. The connection is closed before: nobody is asked any more."""
        self._is_closed = True
        for line in list(self._lines.values()):
            line.close()


class _Line:
    """The owner of one line."""

    def __init__(self, lines: Lines, line: Channel, pack: int, number: int) -> None:
        self._lines = lines
        self._line = line
        self._pack = pack
        self._number = number

    def received(self, frame: Frame) -> None:
        """A worker calls nobody yet."""

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        del reason
        self._lines.line_ended(self._line, self._pack, self._number, unanswered)


class _Inquest:
    """A question to the server, why a line ended; its answer is the answer of all calls that were under way there."""

    def __init__(self, connection: Connection, unanswered: list[PendingCall]) -> None:
        self._connection = connection
        self._unanswered = unanswered

    def begin(self, pack: int, number: int) -> None:
        """Asks. No thread waits for the answer, so somebody has to read for it."""
        body = self._connection.codec.encode(["ending", [], {"pack": pack, "line": number}])
        self._connection.lead.attend(self)
        try:
            self._connection.call(self, SERVER_PEER, body)
        except AirlockError as error:
            self.failed(error)

    def progressed(self, body: bytes | memoryview) -> None:
        del body

    def answered(self, frame: Frame) -> None:
        """Passes the error on as it came: each caller decodes its own."""
        self._connection.lead.dismiss(self)
        for call in self._unanswered:
            call.answered(frame)

    def failed(self, error: AirlockError) -> None:
        self._connection.lead.dismiss(self)
        fail_all(self._unanswered, error)
