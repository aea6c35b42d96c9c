"""What may be sent over the relay to each peer before the server has passed on what went before; PROTOCOL.md, "Flow".

One connection serves all peers, so a peer that reads nothing must not fill it. Whoever has to wait reads meanwhile.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Final

from comfy_airlock.wire.frame import CANCEL, RELEASE
from comfy_airlock.wire.lead import Lead, Seat

_SERVER: Final = 0
#: They may be what ends a jam, and are small.
_FREE_KINDS: Final = frozenset({CANCEL, RELEASE})


class Credit:
    """One window of bytes for each peer."""

    def __init__(self, window: int, lead: Lead) -> None:
        """
        Args:
            window: bytes that each peer begins with.
            lead: waited with where a window is used up.
        """
        self._lead = lead
        self._mutex = threading.Lock()
        self._left: defaultdict[int, int] = defaultdict(lambda: window)
        self._waiting: defaultdict[int, dict[Seat, None]] = defaultdict(dict)
        self._has_ended = False

    def take(self, kind: int, peer: int, count: int) -> bool:
        """Takes a frame's bytes, once any of the window is left, be it less. False where the connection has ended."""
        if peer == _SERVER or kind in _FREE_KINDS:
            return True
        seat = Seat()
        try:
            while not self._taken(peer, count, seat):
                self._lead.wait(seat)
                seat.taken_care_of = False
            return not self._has_ended
        finally:
            with self._mutex:
                if peer in self._waiting:
                    self._waiting[peer].pop(seat, None)

    def _taken(self, peer: int, count: int, seat: Seat) -> bool:
        with self._mutex:
            if self._has_ended or self._left[peer] > 0:
                self._left[peer] -= count
                return True
            self._waiting[peer][seat] = None
            return False

    def give(self, peer: int, count: int) -> None:
        """The server has passed on so many bytes. Called on the thread that reads."""
        with self._mutex:
            self._left[peer] += count
            waiting = list(self._waiting[peer])
        for seat in waiting:
            seat.call_back()

    def end(self) -> None:
        """The connection ended: nobody waits any more."""
        with self._mutex:
            self._has_ended = True
            waiting = [seat for seats in self._waiting.values() for seat in seats]
        for seat in waiting:
            seat.call_back()
