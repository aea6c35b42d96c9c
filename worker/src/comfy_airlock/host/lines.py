"""The ways of one host to its packs: for each whose worker can take one a line, a channel that leads straight to it.

The server makes them and says so; calls go over a line whenever there is one, and over the relay otherwise. When a line
ends, its worker has: the server knows how it died, and is asked before the calls under way fail. No call is sent twice;
one of which nothing was sent yet goes over the relay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from comfy_airlock.calls.pair import Pair, Route
from comfy_airlock.calls.question import Question
from comfy_airlock.calls.sharing import Sharing
from comfy_airlock.calls.waiting import Outcome
from comfy_airlock.host.collector import Collector
from comfy_airlock.host.servants import InOrder, Servants
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.connection import SERVER_PEER, Connection
from comfy_airlock.wire.errors import AirlockError, Disconnected
from comfy_airlock.wire.event_names import LOG_EVENT
from comfy_airlock.wire.frame import Body, Frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.limits import GRACE_SECONDS
from comfy_airlock.wire.optional import standard
from comfy_airlock.wire.recipients import PendingCall, fail_all

_KEEPER_NAME: Final = "airlock-line"

WORKER_ENDED: Final = "worker_ended"
"""The event by which the server tells that a pack's worker has ended."""
LEAVE_LINE: Final = "leave_line"
"""The event by which it asks for no more calls over a line, whose worker it is about to end."""
USE_LINE: Final = "use_line"
"""The event by which it says that the worker goes on after all."""

TELL_MEMORY: Final = "tell_memory"
"""The event by which it asks what this host shares."""

_LEAVING_SECONDS: Final = 0.02
"""How often it is looked whether the calls over a line that was left are over."""
_READ_OUT_SECONDS: Final = 2.0
"""How long the end of a line may take to be read that is known to have ended. The connection is not read meanwhile."""


class PackLink:
    """One pack's worker as this host sees it: the pair with it, and the way to it."""

    def __init__(
        self,
        connection: Connection,
        peer: int,
        name: str | None,
        entangled: Callable[[], None] | None = None,
        pair_class: type[Pair] = Pair,
        sharing: Sharing | None = None,
    ) -> None:
        self._connection = connection
        self._servants = Servants()
        self._events = InOrder(self._servants)
        self.peer = peer
        self.line: Channel | None = None
        # Two threads may tell of two lines: what the pair goes by is to be the line that there is.
        self._going = threading.Lock()
        # Set once all that came over the line was read.
        self._is_read_out = threading.Event()
        self._left: Channel | None = None
        # What the worker on it held when it was left.
        self._mark: dict[int, int] = {}
        self.last_line = 0
        self.audience = 0
        self.pair = pair_class(
            self._route,
            (connection, peer),
            name=name,
            reveals=False,
            entangled=entangled,
            open_leases=lambda: (
                None if sharing is None else sharing.leases(peer, lambda: self.audience, self._said_name, self._route)
            ),
        )
        self.pair.on(LOG_EVENT, self._logged)
        self._logs: Any = None
        self.on_worker_ended: Callable[[], object] | None = None

    def hear_as(self, other: PackLink) -> None:
        """Has events handled as those of another worker of the pack are, and in one order with them."""
        self._events = other._events
        self.pair.events.share(other.pair.events)

    @property
    def _said_name(self) -> str:
        return f"pack {self.pair.name or self.peer}"

    def _route(self) -> Route:
        return self.line or self._connection, self.peer

    def _go_by(self, line: Channel | None) -> None:
        """Makes calls over this line from now on; None stands for the relay."""
        with self._going:
            self.line = line
            self.pair.goes_by(None if line is None else (line, self.peer))

    def _logged(self, event: Any) -> None:
        # A host that doesn't log, and whose packs don't, never imports logging.
        if self._logs is None:
            self._logs = standard("comfy_airlock.host.pack_logs").PackLogs(self.pair.name or "")
        self._logs.handle(event)

    def called(self, call: IncomingCall) -> None:
        """The worker calls, and no thread of this host waits for it."""
        self._servants.submit(lambda: self.pair.service.run(call))

    def received(self, frame: Frame, *, is_direct: bool) -> None:
        """Takes a frame of the worker's that is no call."""
        self.pair.received(frame, self._events.submit, is_direct=is_direct)

    def close(self) -> None:
        """Ends the line, where there is one, and what serves the pack."""
        for line in (self.line, self._left):
            if line is not None:
                line.close()
        self._servants.close()

    def joined(self, line: Channel, number: int) -> None:
        """There is a line to the pack's worker of this number. Called on the thread that reads the connection."""
        self._read_out()
        if self.line is not None:
            self.pair.end()
        self._is_read_out = threading.Event()
        self.last_line = number
        self._go_by(line)

    def _read_out(self) -> None:
        """Has all read that came over a line whose worker has ended, as another one's life shows that it has.

        What it answered before is still its own: a result names blocks that nobody could look at once it was noted that
        their owner is gone. On the thread that reads the connection, so nothing of the next worker's comes before.
        """
        line = self.line
        if line is not None:
            line.lead.call_keeper()
            self._is_read_out.wait(_READ_OUT_SECONDS)

    def leave(self, number: int) -> None:
        """Makes no more calls over a line, and tells the server when those that were made are over: its worker may end.

        Called on the thread that reads the connection.
        """
        line = self.line
        if line is None or number != self.last_line:
            return
        self._left = line
        self._go_by(None)
        line.leave()
        self._mark = self.pair.references.mark()
        threading.Thread(target=self._tell_when_left, args=(line, number), name="airlock-leave", daemon=True).start()

    def _tell_when_left(self, line: Channel, number: int) -> None:
        while line.calls_made and not line.has_ended:
            time.sleep(_LEAVING_SECONDS)
        if self._left is line:
            _ask(self._connection, [], "left_line", self.peer, number)

    def use(self, number: int) -> None:
        """Makes calls over a line again that was left: its worker goes on."""
        line = self._left
        if line is not None and number == self.last_line and not line.has_ended:
            self._left = None
            line.use_again()
            self._go_by(line)

    def line_ended(self, line: Channel) -> None:
        """The worker is gone that was at the end of this line, and all that it held and that was held of it.

        Its leases end when the server tells that it has ended, as that comes after what the server says of calls: which
        of those over the relay it was given, and which wait for the next one, nobody knows before.
        """
        if self.line is line:
            self._go_by(None)
            self.pair.end_references()
            if self._connection.has_ended:
                self.pair.arrays.end()
            self._is_read_out.set()
        elif self._left is line:
            # Calls that were made since then wait for the next worker, and what they hold is that one's.
            self._left = None
            self.pair.references.end_marked(self._mark)
            if self._connection.has_ended:
                self.pair.arrays.end()

    def worker_ended(self, number: object) -> None:
        """The server tells that the pack's worker of this number has ended."""
        self._read_out()
        if number == self.last_line:
            # The end of its line has told the rest already.
            self.pair.arrays.end()
        else:
            self.pair.end()
        if self.on_worker_ended is not None:
            self.on_worker_ended()


class Lines:
    """The owner of a host's connection, and the ways to all packs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.collector = Collector(self._pairs)
        self._mutex = threading.Lock()
        self._packs: dict[int, PackLink] = {}
        self._is_closed = False
        relay: Route = (connection, SERVER_PEER)
        self.server = Pair(lambda: relay, relay, reveals=False)
        self.sharing = Sharing(connection, lambda: self.server)

    def pack(self, peer: int, name: str | None = None, pair_class: type[Pair] = Pair) -> PackLink:
        """The way to a pack's worker. The same for as long as this host is connected."""
        with self._mutex:
            link = self._packs.get(peer)
            if link is None:
                link = self._packs[peer] = PackLink(
                    self._connection, peer, name, self.collector.wake, pair_class, self.sharing
                )
            link.pair.name = name or link.pair.name
            return link

    def _pairs(self) -> list[Pair]:
        return [link.pair for link in list(self._packs.values())]

    def called(self, call: IncomingCall) -> None:
        self.pack(call.peer).called(call)

    def laden(self, frame: Frame) -> Body:
        return self.pack(frame.peer).pair.laden(frame, is_direct=False)

    def gave_up(self) -> None:
        """The server sees to what workers owe over the relay."""

    def received(self, frame: Frame) -> None:
        if frame.kind == frames.LINE:
            self._joined(frame.peer, frame.call)
        elif frame.peer != SERVER_PEER:
            self.pack(frame.peer).received(frame, is_direct=False)
        elif frame.kind == frames.EVENT:
            self._told(self._connection.codec.decode(frame.body))

    def _told(self, event: Any) -> None:
        """An event of the server's own."""
        if not (isinstance(event, list) and len(event) == 2 and isinstance(event[1], dict)):
            return
        name, said = event
        self.sharing.told(name, said)
        if name == TELL_MEMORY:
            body = self._connection.codec.encode(["memory", [], {"report": self.sharing.report() or None}])
            Question(self._connection, lambda _: None).ask(SERVER_PEER, body)
        link = self._packs.get(said.get("pack", SERVER_PEER))
        if link is None:
            return
        if name == WORKER_ENDED:
            link.worker_ended(said.get("number"))
        elif name == LEAVE_LINE:
            link.leave(said.get("line", 0))
        elif name == USE_LINE:
            link.use(said.get("line", 0))

    def _joined(self, peer: int, number: int) -> None:
        """Takes the line that the server announces. Called on the thread that reads the connection."""
        lane = self._connection.lane
        if lane is None:
            return
        line = Channel(lane.take_line(number), self._connection.codec, "the worker")
        link = self.pack(peer)
        line.attach(_Line(self._connection, link, line, number), [])
        link.joined(line, number)
        line.keep(_KEEPER_NAME)
        if self._is_closed:
            line.close()

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        """The connection ended; the server ends the workers with it, and so the lines."""
        fail_all(unanswered, reason)
        for link in list(self._packs.values()):
            if link.line is None:
                link.pair.end()

    def close(self) -> None:
        """Ends all lines and what serves them. The connection is closed before: nobody is asked any more."""
        self._is_closed = True
        self.collector.close()
        for link in list(self._packs.values()):
            link.close()
        self.sharing.close()


class _Line:
    """The owner of one line."""

    def __init__(self, connection: Connection, link: PackLink, line: Channel, number: int) -> None:
        self._connection = connection
        self._link = link
        self._line = line
        self._number = number
        self._mutex = threading.Lock()
        self._watch: threading.Timer | None = None
        self.called = link.called

    def received(self, frame: Frame) -> None:
        self._link.received(frame, is_direct=True)

    def laden(self, frame: Frame) -> Body:
        return self._link.pair.laden(frame, is_direct=True)

    def gave_up(self) -> None:
        with self._mutex:
            if self._watch is None:
                self._watch_for(GRACE_SECONDS)

    def _watch_for(self, seconds: float) -> None:
        self._watch = threading.Timer(seconds, self._look)
        self._watch.daemon = True
        self._watch.start()

    def _look(self) -> None:
        """Has the worker ended where it owes an answer for too long; looks again later where it owes one."""
        with self._mutex:
            self._watch = None
            since = self._line.made.given_up_since()
            left = 0.0 if since is None else since + GRACE_SECONDS - time.monotonic()
            if left > 0:
                self._watch_for(left)
        if since is not None and left <= 0:
            _ask(self._connection, [], "overdue", self._link.peer, self._number)

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        with self._mutex:
            if self._watch is not None:
                self._watch.cancel()
        self._link.line_ended(self._line)
        self._line.close()
        if not isinstance(reason, Disconnected):
            # The worker broke the protocol, and may live on: the callers are told that, and the server ends it.
            fail_all(unanswered, reason)
            unanswered = []
        _ask(self._connection, unanswered, "ending", self._link.peer, self._number)


def _ask(connection: Connection, unanswered: list[PendingCall], method: str, pack: int, number: int) -> None:
    """Asks the server about a line. Its answer is the answer of all calls that were under way there."""
    body = connection.codec.encode([method, [], {"pack": pack, "line": number}])
    Question(connection, partial(_pass_on, unanswered)).ask(SERVER_PEER, body)


def _pass_on(unanswered: list[PendingCall], outcome: Outcome) -> None:
    if isinstance(outcome, AirlockError):
        fail_all(unanswered, outcome)
        return
    for call in unanswered:
        # The error as it came: each caller decodes its own.
        call.answered(outcome)
