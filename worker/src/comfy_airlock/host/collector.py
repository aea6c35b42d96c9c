"""Finds cycles of references across processes and breaks them: asks the workers, decides, gives back.

Surveys are believed only where host and worker have taken from each other all that was sent, so that both are of one
instant; nothing has to stand still for them. What is garbage then stays it. Broken is a cycle where it passes through
this host: the stand-ins on it end as if they had been collected, their owners let go of what they stand for, and the
rest dies of its own accord, finalizers and all.

Looks by itself only where a pair of processes holds each other's objects, first when nothing was exchanged for a while,
and ever more rarely where nothing is found.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from comfy_airlock.calls.pair import Pair
from comfy_airlock.calls.survey import WorkerSurvey, from_wire, take_survey
from comfy_airlock.calls.traffic import Traffic
from comfy_airlock.calls.waiting import Outcome, conclude
from comfy_airlock.host.cycles import find_cycles
from comfy_airlock.wire.limits import CYCLES_QUIET_SECONDS, CYCLES_WAIT_SECONDS_MAX, SURVEY_SECONDS_MAX

Later = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Has something done after so many seconds, on a thread that may be kept; returns what takes that back."""

_SURVEY: Final = "survey"


def _by_timer(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer.cancel


class _Asked:
    """What one worker was asked. It is not cancelled where it takes long: a worker would be ended for that."""

    def __init__(self, pair: Pair, life: int, is_thorough: bool) -> None:
        self._pair = pair
        self._life = life
        self._outcome: Outcome | None = None
        self._is_there = threading.Event()
        pair.ask(_SURVEY, [is_thorough], self._told)

    def _told(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._is_there.set()

    @property
    def is_there(self) -> bool:
        return self._is_there.is_set()

    def answer(self, seconds: float) -> _Answer | None:
        """What the worker said; None where it said nothing in time, or nothing that is of use."""
        if not self._is_there.wait(seconds) or self._outcome is None:
            return None
        try:
            survey = from_wire(conclude(self._pair.codec, self._outcome))
        except Exception:  # noqa: BLE001 - a worker that can't be surveyed, whatever it raises, keeps what it holds.
            return None
        return None if survey is None else _Answer(self._pair, survey, self._life)


class _Answer(NamedTuple):
    """What one worker said, and which of a pack's workers it was."""

    pair: Pair
    survey: WorkerSurvey
    life: int

    def agrees_with(self, traffic: Traffic | None) -> bool:
        """Whether each side has taken all that the other had sent when it was surveyed."""
        return traffic == (self.life, self.survey.received, self.survey.sent)


class Collector:
    """One host's."""

    def __init__(self, pairs: Callable[[], list[Pair]], later: Later = _by_timer) -> None:
        """
        Args:
            pairs: those with this host's packs.
        """
        self._pairs = pairs
        self._later = later
        # One round at a time; Python's collector may run a finalizer that asks for another.
        self._round = threading.RLock()
        self._asked: dict[Pair, _Asked] = {}
        self._seen: list[Traffic | None] = []
        self._pause = CYCLES_QUIET_SECONDS
        self._state = threading.RLock()
        self._take_back: Callable[[], None] | None = None
        self._is_closed = False

    def collect(self, is_thorough: bool = True) -> int:
        """Breaks the cycles that there are, and returns at how many stand-ins.

        Args:
            is_thorough: whether Python's own collectors run before, here and in the workers: what they would free may
                hold on to a cycle.
        """
        with self._round:
            if is_thorough:
                gc.collect()
            return self._break_cycles(self._ask(is_thorough))

    def _entangled(self) -> list[Pair]:
        return [pair for pair in self._pairs() if all(pair.references.counts)]

    def _ask(self, is_thorough: bool) -> list[_Answer]:
        """The surveys of all workers that may be on a cycle, but of those that are at work for longer."""
        for pair in self._entangled():
            if pair not in self._asked:
                self._asked[pair] = _Asked(pair, pair.references.life, is_thorough)
        until = time.monotonic() + SURVEY_SECONDS_MAX
        answers = [each.answer(max(0.0, until - time.monotonic())) for each in self._asked.values()]
        self._asked = {pair: asked for pair, asked in self._asked.items() if not asked.is_there}
        return [each for each in answers if each is not None]

    def _break_cycles(self, answers: list[_Answer]) -> int:
        # Where more was exchanged since, what the worker holds counts as alive here, and it is left out.
        settled = [each for each in answers if each.agrees_with(each.pair.references.traffic())]
        survey = take_survey([each.pair.references for each in settled]) if settled else None
        if survey is None or not all(map(_Answer.agrees_with, settled, survey.traffic)):
            return 0
        cycles = find_cycles(survey.holdings, [each.survey for each in settled])
        return sum(
            each.pair.references.give_back([number for of, number in cycles if of == place], survey.traffic[place])
            for place, each in enumerate(settled)
        )

    def wake(self) -> None:
        """A pair of processes holds each other's objects now. From any thread; cheap where that is known."""
        if self._take_back is None:
            with self._state:
                if self._take_back is None:
                    self._look_after(CYCLES_QUIET_SECONDS)

    def _look_after(self, seconds: float) -> None:
        """Holds the state."""
        if self._is_closed:
            return
        try:
            self._take_back = self._later(seconds, self._look)
        except RuntimeError:
            # No thread can be started: the interpreter is about to end, or there are too many.
            self._take_back = None

    def _look(self) -> None:
        """Looks for cycles, unless something was exchanged a moment ago; and sees to it that this is done again."""
        with self._round:
            entangled = self._entangled()
            seen = [pair.references.traffic() for pair in entangled]
            is_quiet, self._seen = seen == self._seen and None not in seen, seen
        if not entangled:
            self._rest()
            return
        if is_quiet:
            has_found = self.collect(is_thorough=False) > 0
            self._pause = CYCLES_QUIET_SECONDS if has_found else min(2 * self._pause, CYCLES_WAIT_SECONDS_MAX)
        with self._state:
            self._look_after(self._pause if is_quiet else CYCLES_QUIET_SECONDS)

    def _rest(self) -> None:
        """Until :meth:`wake`."""
        with self._state:
            self._take_back = None
        self._pause = CYCLES_QUIET_SECONDS
        # Between looking and resting a pair may have come.
        if self._entangled():
            self.wake()

    def close(self) -> None:
        """Looks no more."""
        with self._state:
            self._is_closed = True
            take_back = self._take_back
        if take_back is not None:
            take_back()
