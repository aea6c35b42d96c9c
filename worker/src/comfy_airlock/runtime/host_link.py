"""The worker's host: the pair with it, the ways to it, and the executor that its calls go to."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, Final

from comfy_airlock.calls.inference import InferenceMode
from comfy_airlock.calls.pair import Pair, Route
from comfy_airlock.calls.service import Methods
from comfy_airlock.calls.sharing import Sharing
from comfy_airlock.runtime.executor import Executor
from comfy_airlock.runtime.streams import Streams
from comfy_airlock.wire import frame as frames
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.connection import SERVER_PEER, Connection
from comfy_airlock.wire.errors import AirlockError, BadRequest
from comfy_airlock.wire.event_names import check_event_name
from comfy_airlock.wire.frame import Body, Frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.optional import standard
from comfy_airlock.wire.recipients import PendingCall, fail_all

HEALTH: Final = "health"
"""The method by which the server asks how this worker is."""

_LATEST: Final[dict[str, Pair]] = {}
"""The pair with this worker's host. One per process, as the worker is."""


class HostLink:
    """The owner of the connection to the server, over which the relay leads to the host."""

    def __init__(
        self,
        connection: Connection,
        streams: Streams,
        pack: str,
        methods: Methods,
        inference: InferenceMode,
        stateful: Callable[[], int],
    ) -> None:
        """
        Args:
            methods: what the host can call, besides the objects that it holds.
            inference: entered before each call.
            stateful: how many nodes keep something between calls.
        """
        self._connection = connection
        self._streams = streams
        self._host = connection.welcome.get("host", SERVER_PEER)
        self._line: Channel | None = None
        self._stateful = stateful
        methods = {**methods, "idle": lambda: self.executor.idle(), "survey": self._survey}
        relay: Route = (connection, self._host)
        server: Route = (connection, SERVER_PEER)
        self._server = Pair(lambda: server, server, reveals=False)
        self.sharing = Sharing(connection, lambda: self._server)
        self.pair = Pair(
            self._route,
            relay,
            reveals=True,
            methods=methods,
            pack=pack,
            inference=inference,
            open_leases=lambda: self.sharing.leases(self._host, lambda: None, "the host", self._route),
        )
        self.executor = Executor(self.pair.service, streams)

    def attach(self) -> None:
        """Begins to take calls."""
        _LATEST["host"] = self.pair
        self._streams.add(self._connection)
        self._connection.attach(self, self._connection.early)

    def _route(self) -> Route:
        return self._line or self._connection, self._host

    def _survey(self, is_thorough: bool, /) -> list[Any] | None:
        """Who holds what here. A method, so carried out between calls, by the thread that runs nodes."""
        if is_thorough:
            gc.collect()
        # Most workers are never asked.
        survey = standard("comfy_airlock.calls.survey")
        answer: list[Any] | None = survey.to_wire(survey.take_survey([self.pair.references]))
        return answer

    def called(self, call: IncomingCall) -> None:
        if call.peer == SERVER_PEER and self._method_of(call) == HEALTH:
            # At once, whatever the thread that runs nodes is at.
            call.channel.answer_aside(call, frames.RESULT, self._connection.codec.encode(self._health()))
        else:
            self.executor.submit(call)

    def _method_of(self, call: IncomingCall) -> object:
        try:
            request = self._connection.codec.decode(call.body)
        except AirlockError:
            return None  # Whoever carries it out says so.
        return request[0] if isinstance(request, list) and request else None

    def _health(self) -> dict[str, Any]:
        """How this worker is; PROTOCOL.md, "Methods of a worker", explains the fields."""
        channels: list[Channel] = [self._connection] if self._line is None else [self._connection, self._line]
        # This one is being answered.
        calls = sum(each.calls_taken + each.calls_made for each in channels) - 1
        held, holds = self.pair.references.counts
        idle = 0.0 if calls else time.monotonic() - max(each.answered_at for each in channels)
        return {
            "calls": calls,
            "held": held,
            "holds": holds,
            "stateful": self._stateful(),
            "idle_ms": idle * 1000,
            "loop_lag_ms": self.executor.loop_lag_ms(),
            "memory": self.sharing.report() or None,
        }

    def laden(self, frame: Frame) -> Body:
        return self.pair.laden(frame, is_direct=False)

    def gave_up(self) -> None:
        """The relay sees to what the host owes."""

    def received(self, frame: Frame) -> None:
        if frame.kind == frames.EVENT and frame.peer == SERVER_PEER:
            self._told(self._connection.codec.decode(frame.body))
        elif frame.kind != frames.LINE:
            self.pair.received(frame, self.executor.submit, is_direct=False)
        elif self._connection.lane is not None:
            ends = self._connection.lane.take_line(frame.call)
            line = Channel(ends, self._connection.codec, "the host", self._streams)
            self._line = line
            line.attach(_LineSide(self, line), [])
            self._streams.add(line)

    def _told(self, event: Any) -> None:
        """An event of the server's own."""
        if isinstance(event, list) and len(event) == 2:
            self.sharing.told(*event)

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        """The server is gone, or ends this worker."""
        # It is still polled, so that whoever is about to wait for something to read finds that there is nothing more.
        self._streams.lead.end()
        self.executor.stop()
        fail_all(unanswered, reason)

    def line_ended(self, line: Channel, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        """The host is gone, and the server ends its workers."""
        self._streams.remove(line)
        if self._line is line:
            self._line = None
        line.close()
        fail_all(unanswered, reason)


class _LineSide:
    """The owner of the line."""

    def __init__(self, link: HostLink, line: Channel) -> None:
        self._link = link
        self._line = line
        self.called = link.executor.submit

    def gave_up(self) -> None:
        """A host that owes an answer is its own user's to end."""

    def received(self, frame: Frame) -> None:
        self._link.pair.received(frame, self._link.executor.submit)

    def laden(self, frame: Frame) -> Body:
        return self._link.pair.laden(frame, is_direct=True)

    def ended(self, reason: AirlockError, unanswered: list[PendingCall]) -> None:
        self._link.line_ended(self._line, reason, unanswered)


def _host() -> Pair:
    host = _LATEST.get("host")
    if host is None:
        raise BadRequest("this process is no worker: it has no host", hint="a host uses pack.emit and pack.on")
    return host


def emit(name: str, value: Any = None) -> None:
    """Sends an event to the host, which handles it by ``pack.on(name, …)``. For the code of a pack; any thread may.

    Raises:
        BadRequest: this process is no worker, or the name is reserved.
        ValueUnsupported, LimitExceeded: the value can't be sent.
    """
    _host().emit(check_event_name(name), value)


def on(name: str, handler: Callable[[Any], object] | None) -> None:
    """Has the host's events of this name handled, between calls on the thread that runs nodes; None ends that.

    Raises:
        BadRequest: this process is no worker, or the name is reserved.
    """
    _host().on(check_event_name(name), handler)


def share(array: Any) -> Any:
    """A copy of a tensor or numpy array in memory that the host can map; sending it again and again copies nothing.

    For the code of a pack; as :meth:`comfy_airlock.Airlock.share` in a host.

    Raises:
        BadRequest: this process is no worker.
        ValueUnsupported, LimitExceeded: the array can't be shared.
    """
    return _host().arrays.share(array)
