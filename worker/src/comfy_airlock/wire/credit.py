"""What may be sent over the relay to each peer before the server has passed on what went before; PROTOCOL.md, "Flow".

One connection serves all peers, so a peer that reads nothing must not fill it. Who finds none of its window left gets
in line, and is called back when there may be credit: a thread is a line of its own, the coroutines of one event loop
are one, so that what they send goes in the order in which they came.
Invariant: what was taken is noted where it was asked for, so that what is not sent after all can be given back; an
interrupt comes before both or after.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from itertools import repeat
from operator import setitem
from typing import Final, Protocol

from comfy_airlock.wire.frame import CANCEL, RECLAIM, RELEASE, RETURN
from comfy_airlock.wire.lead import Lead, Seat

_SERVER: Final = 0
#: They may be what ends a jam, and are small.
_FREE_KINDS: Final = frozenset({CANCEL, RELEASE, RETURN, RECLAIM})
_SET_ITEM: Final[Callable[[dict[int, int], int, int], None]] = setitem


class Turn(Protocol):
    """Somebody who does not block for credit, but sends once called back."""

    @property
    def line(self) -> object:
        """Those of one line send in the order in which they got in."""
        ...

    def call_back(self) -> None:
        """There may be credit. Called on any thread, which must not be kept."""


class Credit:
    """One window of bytes for each peer."""

    def __init__(self, window: int, lead: Lead) -> None:
        """
        Args:
            window: bytes that each peer begins with.
            lead: waited with where a thread blocks for credit.
        """
        self._lead = lead
        self._mutex = threading.Lock()
        self._left: defaultdict[int, int] = defaultdict(lambda: window)
        # By peer, where somebody waits; never empty.
        self._lines: dict[int, dict[object, OrderedDict[Turn | Seat, None]]] = {}
        self._has_ended = False

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it, and so for what is to be read."""
        return bool(self._lines)

    def take(self, kind: int, peer: int, count: int, taken: dict[int, int], turn: Turn | None = None) -> bool:
        """Takes a frame's bytes, where any of the window is left, be it less; and where nobody waits any more.

        Args:
            taken: how many were taken, by peer, from the moment that they are.
            turn: whose frame it is; not before those who stand before it in its line.
        """
        if peer == _SERVER or kind in _FREE_KINDS:
            return True
        with self._mutex:
            left = self._left[peer]
            if self._has_ended:
                return True
            if left <= 0 or (turn is not None and peer in self._lines and self._stands_behind(peer, turn)):
                return False
            # Taken and noted by one call into C: a signal's handler, which may raise, runs before or after it.
            deque(map(_SET_ITEM, (self._left, taken), repeat(peer), (left - count, count)), maxlen=0)
            return True

    def _stands_behind(self, peer: int, turn: Turn) -> bool:
        line = self._lines[peer].get(turn.line)
        return line is not None and next(iter(line)) is not turn

    def wait(self, kind: int, peer: int, count: int, taken: dict[int, int]) -> None:
        """As :meth:`take`; blocks until there is something to take, and reads meanwhile."""
        seat = Seat()
        try:
            self._enter(peer, seat, seat)
            while not self.take(kind, peer, count, taken):
                self._lead.wait(seat)
                seat.taken_care_of = False
        finally:
            self._leave(peer, seat, seat)

    def enter(self, peer: int, turn: Turn) -> None:
        """Gets in line. To be followed by :meth:`take`, as there may be credit by now."""
        self._enter(peer, turn.line, turn)

    def leave(self, peer: int, turn: Turn) -> None:
        """Gets out of the line, having sent or not."""
        self._leave(peer, turn.line, turn)

    def abandon(self, peer: int, line: object) -> None:
        """Nobody of a line can be called back any more."""
        with self._mutex:
            self._remove_line(peer, line)

    def _enter(self, peer: int, line: object, turn: Turn | Seat) -> None:
        with self._mutex:
            self._lines.setdefault(peer, {}).setdefault(line, OrderedDict())[turn] = None

    def _leave(self, peer: int, line: object, turn: Turn | Seat) -> None:
        with self._mutex:
            turns = self._lines.get(peer, {}).get(line, OrderedDict())
            turns.pop(turn, None)
            if not turns:
                self._remove_line(peer, line)
            following = next(iter(turns), None) if self._has_ended or self._left[peer] > 0 else None
        if following is not None:
            following.call_back()

    def _remove_line(self, peer: int, line: object) -> None:
        lines = self._lines.get(peer, {})
        lines.pop(line, None)
        if not lines:
            self._lines.pop(peer, None)

    def give(self, peer: int, count: int) -> None:
        """So many bytes were passed on, by the server, or not sent after all. Called on any thread."""
        with self._mutex:
            self._left[peer] += count
            firsts = self._firsts(peer) if self._left[peer] > 0 else []
        for turn in firsts:
            turn.call_back()

    def _firsts(self, peer: int) -> list[Turn | Seat]:
        return [next(iter(turns)) for turns in self._lines.get(peer, {}).values()]

    def end(self) -> None:
        """The connection ended: nobody waits any more."""
        with self._mutex:
            self._has_ended = True
            firsts = [turn for peer in self._lines for turn in self._firsts(peer)]
        for turn in firsts:
            turn.call_back()
