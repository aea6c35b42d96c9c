"""What a worker reads: its connection to the server, and the line to its host once there is one; by one thread, in one.

The thread that runs nodes waits for calls on all of them at once, so none of them may block it alone. An epoll, as it
is a descriptor itself: what an event loop watches stays the same while channels come and go.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Lead


class Streams:
    """The channels that are read, and the lead over them."""

    def __init__(self) -> None:
        self.lead = Lead(self._read, lambda: any(channel.is_full for channel in self._channels.values()))
        self._channels: dict[int, Channel] = {}
        self._epoll = select.epoll()
        held_by_this_process.add(self)
        # The one that most comes over: the line, once there is one.
        self._latest: Channel | None = None

    def add(self, channel: Channel) -> None:
        """Reads ``channel``, too. Called before anybody reads, or by whoever reads."""
        descriptor = channel.fileno()
        self._channels[descriptor] = channel
        self._latest = channel
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, channel: Channel) -> None:
        """Reads ``channel`` no more. Called by whoever reads."""
        descriptor = channel.fileno()
        self._latest = None if self._latest is channel else self._latest
        if self._channels.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def fileno(self) -> int:
        """A descriptor that is readable while something is to be read from any of them."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Nobody reads any more: lets go of the descriptor. The channels are their owners'."""
        self._epoll.close()

    def read_now(self) -> None:
        """Reads what has come, if something has. Called by whoever leads."""
        self._read_ready(0.0, None)

    def may_look(self) -> bool:
        """Whether it may pay to :meth:`look` this time."""
        return self._latest is not None and self._latest.may_look()

    def look(self) -> None:
        """As :meth:`read_now`, and goes on looking for a moment where most comes from."""
        if self._latest is not None:
            self._latest.look()

    def _read(self, seconds: float | None, called: Callable[[IncomingCall], object] | None = None) -> None:
        if (
            seconds is None
            and self._latest is not None
            and self._latest.receiver.may_spin
            and self._latest.receiver.look()
        ):
            self._latest.read(None, 0, called if self._latest.is_direct else None)
            return
        self._read_ready(seconds, called)

    def _read_ready(self, seconds: float | None, called: Callable[[IncomingCall], object] | None) -> None:
        for descriptor, _ in self._epoll.poll(seconds):
            # One that was handed out before this one may have ended it.
            channel = self._channels.get(descriptor)
            if channel is not None:
                channel.read(None, 0, called if channel.is_direct else None)
