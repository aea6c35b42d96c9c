"""Who handles the events of one other process, and how many of those wait for it.

What waits is bounded: events that come faster than they are handled are dropped, and that is logged once each time it
begins. Does not send any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_airlock.wire.frame import HEADER_BYTES, Frame
from comfy_airlock.wire.limits import EVENT_BYTES_MAX
from comfy_airlock.wire.optional import standard

EventHandler = Callable[[Any], object]


class EventHandlers:
    """Those of one pair of processes. Several pairs may have the same handlers; each counts what waits for itself."""

    def __init__(self, decoded: Callable[[Frame], Any]) -> None:
        """
        Args:
            decoded: the value of an event's frame; None where there is none.
        """
        self._decoded = decoded
        self._by_name: dict[str, EventHandler] = {}
        self._waiting_bytes = 0
        self._drops = False

    def on(self, name: str, handler: EventHandler | None) -> None:
        """Has events of this name handled, each with its value; None ends that."""
        if handler is None:
            self._by_name.pop(name, None)
        else:
            self._by_name[name] = handler

    def share(self, other: EventHandlers) -> None:
        """Has events handled as those of another process are, whatever is changed there later."""
        self._by_name = other._by_name

    def take(self, frame: Frame, sender: str | None, later: Callable[[Callable[[], None]], None]) -> bool:
        """Has an event handled. False where it is dropped, as too many wait.

        Args:
            sender: whose it is, for the log.
            later: carries out what it is given, off the thread that reads and in order.
        """
        if self._waiting_bytes < EVENT_BYTES_MAX:
            # With the header: of those without a body there are to be no more.
            self._waiting_bytes += HEADER_BYTES + len(frame.body)
            later(lambda: self._handle(frame))
            return True
        if not self._drops:
            self._drops = True
            said = "events are dropped: %d bytes of them wait for their handlers; peer %s"
            standard("logging").getLogger("comfy_airlock").warning(said, self._waiting_bytes, sender)
        return False

    def _handle(self, frame: Frame) -> None:
        self._waiting_bytes -= HEADER_BYTES + len(frame.body)
        self._drops = False
        event = self._decoded(frame)
        if not (isinstance(event, list) and len(event) == 2 and isinstance(event[0], str)):
            return
        handler = self._by_name.get(event[0])
        if handler is None:
            return
        try:
            handler(event[1])
        except Exception:  # noqa: BLE001 - a handler may do anything, and nobody waits for what it does.
            standard("logging").getLogger("comfy_airlock").exception("a handler of event %r failed", event[0])
