"""How many messages with references were exchanged with one other side: what shows that none is on its way.

Where each side has taken as many as the other has sent, what both hold is all that there is. Counted by any thread,
also in a finalizer that interrupts one which counts, so each step is a single call into C, and no lock is taken.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import NamedTuple


class Traffic(NamedTuple):
    """What was exchanged so far.

    Attributes:
        life: which of the processes that there were on the other side.
        sent, received: messages.
    """

    life: int
    sent: int
    received: int


class Tally:
    """A count.

    Attributes:
        add: adds one.
    """

    def __init__(self) -> None:
        self._count = count()
        self.add = partial(next, self._count)
        self._looks = 0

    def look(self) -> int:
        """How many were added. One thread at a time may look: looking counts, too, and is taken off again."""
        added = next(self._count) - self._looks
        self._looks += 1
        return added


class TrafficCounter:
    """Counts the messages that hold references.

    Attributes:
        life: which process is on the other side.
    """

    def __init__(self) -> None:
        self.life = 0
        self._clear()

    def _clear(self) -> None:
        self._sent, self._taken_back, self._received = Tally(), Tally(), Tally()

    def sent(self) -> None:
        """One is about to be sent; whoever sends it holds on to what is in it until this was counted."""
        self._sent.add()

    def taken_back(self) -> None:
        """One that was counted as sent was not."""
        self._taken_back.add()

    def received(self) -> None:
        """One has come."""
        self._received.add()

    def look(self) -> Traffic:
        """What was exchanged so far. One thread at a time may look."""
        return Traffic(self.life, self._sent.look() - self._taken_back.look(), self._received.look())

    def end(self) -> None:
        """Another process will be on the other side."""
        self.life += 1
        self._clear()
