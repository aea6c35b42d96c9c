"""The calls under way on one channel: those that this side has made, and those that it is to answer. Sends nothing."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Final

from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.limits import CALLS_MAX, INCOMING_BYTES_MAX, INCOMING_BYTES_READ_ON
from comfy_airlock.wire.recipients import PendingCall

NUMBER_MAX: Final = 0xFFFF_FFFF

BYTES_COUNTED_MIN: Final = 1024
"""Bytes of a call below which they are not counted: there are no more than CALLS_MAX of those."""


class CallsMade:
    """This side's, and the numbers that they have. From any thread.

    Attributes:
        waiting: those that wait for their answers, by number. The same dict for ever.
        numbers: what the next is called.
    """

    def __init__(self) -> None:
        self.waiting: Final[dict[int, PendingCall]] = {}
        self.numbers = itertools.count(1)
        self._mutex = threading.Lock()
        # Their numbers are not free before their answers have come, which somebody else's would be taken for.
        self._given_up: dict[int, float] = {}

    def next_number(self) -> int:
        """The number of a call that is about to be sent."""
        number = next(self.numbers)
        return number if number <= NUMBER_MAX else self.first_free(number)

    def first_free(self, number: int) -> int:
        """What a call is called instead, where the numbers are through and begin again: one that is in use of none."""
        while number > NUMBER_MAX:
            number = (number - 1) % NUMBER_MAX + 1
            if number in self.waiting or number in self._given_up:
                number = next(self.numbers)
        return number

    def take(self, number: int) -> PendingCall | None:
        """Who waited for this answer, and does no longer."""
        return self.waiting.pop(number, None)

    def give_up(self, number: int, *, is_owed: bool) -> bool:
        """Nobody waits for this answer any more. False where it has come.

        Args:
            is_owed: whether it comes all the same.
        """
        with self._mutex:
            is_late = self.waiting.pop(number, None) is None
            if is_owed and not is_late:
                self._given_up[number] = time.monotonic()
        return not is_late

    def answered_late(self, number: int) -> None:
        """The answer to a call that was given up has come."""
        with self._mutex:
            self._given_up.pop(number, None)

    def given_up_since(self) -> float | None:
        """Since when, on the monotonic clock, the answer to a call that was given up is owed."""
        with self._mutex:
            return next(iter(self._given_up.values()), None)

    def end(self) -> list[PendingCall]:
        """Those that no answer will come to."""
        # One by one: a call that is begun meanwhile either finds why, or is found here.
        taken = [self.waiting.pop(number, None) for number in list(self.waiting)]
        return [each for each in taken if each is not None]


class CallsTaken:
    """The other side's, by its numbers. Those that come are put there by whoever reads, and answered on any thread.

    Attributes:
        unanswered: those that are to be answered. The same dict for ever.
        size: bytes of those that were not decoded yet.
    """

    def __init__(self) -> None:
        self.unanswered: Final[dict[int, IncomingCall]] = {}
        self.size = 0

    def put(self, call: IncomingCall, size: int) -> bool:
        """One has come. False where it must not: there are too many, or its number is in use or none.

        Args:
            size: bytes of it that are to be counted.
        """
        number = call.number
        is_one_too_many = len(self.unanswered) >= CALLS_MAX or (size and self.size >= INCOMING_BYTES_MAX)
        if number == 0 or number in self.unanswered or is_one_too_many:
            return False
        self.unanswered[number] = call
        call.size = size
        self.size += size
        return True

    @property
    def is_crowded(self) -> bool:
        """Whether there are as many as may be."""
        return len(self.unanswered) >= CALLS_MAX or self.size >= INCOMING_BYTES_MAX

    @property
    def is_plenty(self) -> bool:
        """Whether they are to be worked off before more are read."""
        return self.size > INCOMING_BYTES_READ_ON

    def decoded(self, call: IncomingCall) -> None:
        """The body of one is needed no more: it is no longer among what waits here."""
        size, call.size = call.size, 0
        self.size -= size
        # It may hold back releases for as long as it is there, and what is called may take long.
        call.body = b""

    def end(self) -> list[IncomingCall]:
        """Those that nobody waits for any more."""
        taken = [self.unanswered.pop(number, None) for number in list(self.unanswered)]
        return [each for each in taken if each is not None]
