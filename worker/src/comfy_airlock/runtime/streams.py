"""What a worker reads: its connection to the server, and the line to its host once there is one; by one thread, in one.

The thread that runs nodes waits for calls on all of them at once; for one of them alone no longer than a moment. An
epoll, as it is a descriptor itself: what an event loop watches stays the same while channels come and go.
"""

from __future__ import annotations

import select
from signal import ITIMER_REAL, getitimer
from time import monotonic
from typing import Final

from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.express import Take
from comfy_airlock.wire.forking import held_by_this_process
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Lead, Turn, Waiting

_ALONE_SECONDS: Final = 0.02
"""How long the channel that something has come over is waited for alone. Others are looked at as often, so they may
have to wait twice as long to be read."""


class Streams:
    """The channels that are read, and the lead over them.

    Attributes:
        take: reads once for who runs calls, as :attr:`Channel.take`: that of the line, where one call follows another
            over it. To be looked up each time: the lead's keeper, who sees every 20 ms whether somebody reads, has the
            others read as often.
    """

    def __init__(self) -> None:
        self.lead = Lead(
            self._read, lambda: any(channel.is_full for channel in self._channels.values()), self._look_around
        )
        self.take: Take = self._take
        self._channels: dict[int, Channel] = {}
        self._epoll = select.epoll()
        held_by_this_process.add(self)
        # The one that most comes over: the line, once there is one.
        self._latest: Channel | None = None
        # The same where something has just come over it: where calls follow one another, waiting for it alone spares
        # every other system call.
        self._busy: Channel | None = None
        self._alone_until = 0.0
        # Whether an event loop watches for all of them: what is ready and not read would call it again and again.
        self._is_watched = False

    def add(self, channel: Channel) -> None:
        """Reads ``channel``, too. Called before anybody reads, or by whoever reads."""
        descriptor = channel.fileno()
        self._channels[descriptor] = channel
        self._latest = channel
        self._busy, self.take = None, self._take
        channel.receiver.wait_at_most(_ALONE_SECONDS)
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, channel: Channel) -> None:
        """Reads ``channel`` no more. Called by whoever reads."""
        descriptor = channel.fileno()
        self._latest = None if self._latest is channel else self._latest
        self._busy, self.take = None, self._take
        if self._channels.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def fileno(self) -> int:
        """A descriptor that is readable while something is to be read from any of them."""
        self._is_watched, self._busy, self.take = True, None, self._take
        return self._epoll.fileno()

    def close(self) -> None:
        """Nobody reads any more: lets go of the descriptor. The channels are their owners'."""
        self._epoll.close()

    def read_now(self) -> None:
        """Reads what has come, if something has. Called by whoever leads."""
        self._read_ready(0.0)

    def may_look(self) -> bool:
        """Whether it may pay to :meth:`look` this time."""
        return self._latest is not None and self._latest.may_look()

    def look(self) -> None:
        """As :meth:`read_now`, and goes on looking for a moment where most comes from."""
        if self._latest is not None:
            self._latest.look()

    def nothing_came(self) -> None:
        """The one that was waited for alone was quiet."""
        self._busy, self.take = None, self._take

    def _look_around(self) -> None:
        """Has all be looked at the next time. Called by the keeper."""
        self._alone_until = 0.0
        self.take = self._take

    def _take(self, seat: Waiting, turn: Turn) -> IncomingCall | None:
        """As :attr:`take`, whatever comes; all of it is handed out."""
        lead = self.lead
        lead.will_take()
        lead.hold(turn, lambda: None if seat.taken_care_of or lead.has_ended else self._read())

    def _read(self, seconds: float | None = None) -> None:
        busy = self._busy
        # A timer's signals begin the wait for one anew each time, so that it may never end.
        if busy is None or seconds is not None or getitimer(ITIMER_REAL)[0]:
            self._read_ready(seconds)
            return
        now = monotonic()
        if now > self._alone_until:
            self._alone_until = now + _ALONE_SECONDS
            self._busy = None if busy.has_ended else busy
            if self._read_ready(0.0) or self._busy is None:
                return
        busy.read()
        if busy is self._busy and busy.is_direct:
            self.take = busy.take

    def _read_ready(self, seconds: float | None) -> bool:
        ready = self._epoll.poll(seconds)
        for descriptor, _ in ready:
            # One that was handed out before this one may have ended it.
            channel = self._channels.get(descriptor)
            if channel is not None:
                if channel is self._latest and not self._is_watched:
                    self._busy = channel
                channel.read()
        return bool(ready)
