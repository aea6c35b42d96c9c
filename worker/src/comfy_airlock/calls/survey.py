"""What one process knows of who holds what: the other side's objects that it holds for good, and those that it holds
only because the other side holds some of its own.

A survey is of one instant, and says what had been exchanged with each other side by then. Frees nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from comfy_airlock.calls.pair import Pair
from comfy_airlock.calls.references import References
from comfy_airlock.calls.remote import Handle
from comfy_airlock.calls.traffic import Traffic
from comfy_airlock.calls.trial_deletion import Holdings, find_holdings
from comfy_airlock.wire.channel import Channel

#: Whoever holds one of these holds the tables themselves: what lies behind them is no way from one object to another.
_STOPS: Final = (Channel, Handle, Pair)


class Survey(NamedTuple):
    """One process at one instant.

    Attributes:
        traffic: what it had exchanged with each other side.
        holdings: the keys' first halves are places in the list of other sides.
    """

    traffic: list[Traffic]
    holdings: Holdings


def take_survey(sides: Sequence[References]) -> Survey | None:
    """Surveys this process; None where something was just being exchanged, or this interpreter can't be surveyed."""
    # Without the lock that Python is known for, threads go on while references are counted.
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    before = [each.traffic() for each in sides]
    tables = [each.tables() for each in sides]
    holdings = find_holdings([exports for exports, _ in tables], [held for _, held in tables], _STOPS)
    after = [each for each in (side.traffic() for side in sides) if each is not None]
    return Survey(after, holdings) if before == after else None


class WorkerSurvey(NamedTuple):
    """A worker's, as PROTOCOL.md has it.

    Attributes:
        sent, received: messages with references, to and from its host.
        rooted: the host's objects that something else than the worker's exported objects holds.
        reached: by object of the worker's, those of the host's that it holds.
    """

    sent: int
    received: int
    rooted: set[int]
    reached: dict[int, set[int]]


def to_wire(survey: Survey | None) -> list[Any] | None:
    """The survey of a worker, whose only other side is its host."""
    if survey is None:
        return None
    (traffic,), (rooted, reached) = survey
    held = [[own, [number for _, number in numbers]] for (_, own), numbers in reached.items()]
    return [traffic.sent, traffic.received, [number for _, number in rooted], held]


def from_wire(answer: Any) -> WorkerSurvey | None:
    """A worker's survey; None where it has none, or its answer is none."""
    match answer:
        case [int(sent), int(received), list(rooted), list(held)] if _are_numbers(rooted):
            reached: dict[int, set[int]] = {}
            for each in held:
                match each:
                    case [int(own), list(numbers)] if _are_numbers(numbers):
                        reached[own] = set(numbers)
                    case _:
                        return None
            return WorkerSurvey(sent, received, set(rooted), reached)
        case _:
            return None


def _are_numbers(items: list[Any]) -> bool:
    return all(type(each) is int for each in items)
