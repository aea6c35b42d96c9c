"""What of a set of tables something besides them holds: CPython's own trial deletion, on what the tables reach.

Every reference to an object that was found is either one that another of the found objects holds, which is counted, or
it is a surplus: a variable's, a thread's stack, or an object's that was not looked at. What has a surplus is rooted,
and so is all that it reaches. To look at fewer objects is therefore always safe: what they hold counts as rooted.

Counts and references are read by one call into C, so no other thread runs in between. Knows nothing of what the tables
are for, and changes nothing.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterable, Sequence
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple

from comfy_airlock.wire.limits import SURVEY_CONTAINER_ITEMS_MAX, SURVEY_REFERENCES_MAX

Table = dict[int, Any]
Key = tuple[int, int]
"""Which table of its kind, and what the object is known by there."""

_HAS_REFERENTS: Final = 1 << 14
"""CPython's Py_TPFLAGS_HAVE_GC: instances of other types hold nothing, or nothing that they tell."""
_SIZED: Final = (list, dict, tuple, set, frozenset)

#: Python's collector must not run in between, and is the process's: one at a time may stop it.
_collector_stopped: Final = threading.Lock()


class Holdings(NamedTuple):
    """Who holds the stand-ins.

    Attributes:
        rooted: those that something else than exported objects holds.
        reached: by exported object, those of the others that it holds, directly or not.
    """

    rooted: set[Key]
    reached: dict[Key, set[Key]]


def find_holdings(
    exports: Sequence[Table],
    stand_ins: Sequence[Table],
    stops: tuple[type, ...] = (),
    references_max: int = SURVEY_REFERENCES_MAX,
) -> Holdings:
    """Finds who holds the stand-ins. The tables' own references count for nothing.

    Args:
        exports, stand_ins: tables that nobody changes but by taking something out or in.
        stops: types whose instances are not looked at, nor what they hold.
        references_max: how many references are looked at; what lies behind them counts as rooted.
    """
    tables = [*exports, *stand_ins]
    nodes = _reachable(tables, stops, references_max)
    counts, referents = _snapshot(nodes)
    index = {id(node): at for at, node in enumerate(nodes)}
    edges = [[at for at in map(index.get, map(id, each)) if at is not None] for each in referents]
    # The last is held by the list of nodes alone.
    surpluses = [count - counts[-1] for count in counts]
    for held in edges:
        for at in held:
            surpluses[at] -= 1
    alive = bytearray(len(nodes))
    # Nothing is passed through the tables.
    alive[: len(tables)] = b"\1" * len(tables)
    _reach((at for at in range(len(tables), len(nodes)) if surpluses[at]), edges, alive)
    places = {key: index.get(place) for key, place in _places(stand_ins)}
    keys = {at: key for key, at in places.items() if at is not None}
    reached: dict[Key, set[Key]] = {}
    looks_left = 4 * references_max
    for key, place in _places(exports):
        at = index.get(place)
        reached[key] = set()
        if at is None or alive[at]:
            continue
        found = _closure(at, edges, alive, looks_left)
        looks_left -= sum(len(edges[each]) for each in found)
        if looks_left < 0:
            # Many that each hold much: what these hold counts as rooted.
            _reach([at], edges, alive)
            continue
        reached[key].update(keys[each] for each in found if each in keys)
    return Holdings({key for key, at in places.items() if at is None or alive[at]}, reached)


def _places(tables: Sequence[Table]) -> list[tuple[Key, int]]:
    # Listed by one call into C, as other threads may change the table meanwhile.
    return [((at, number), id(each)) for at, table in enumerate(tables) for number, each in [*table.items()]]


def _reachable(tables: Sequence[Table], stops: tuple[type, ...], references_max: int) -> list[Any]:
    """The tables and what they reach, the nearest first. Other threads may run meanwhile: what it misses is rooted."""
    nodes: list[Any] = [*tables]
    seen = {id(node) for node in nodes}
    kinds: dict[type, bool] = {}
    left = references_max
    for at, node in enumerate(nodes):
        referents = gc.get_referents(node)
        left -= len(referents)
        if left < 0:
            del nodes[max(at, len(tables)) :]
            break
        for each in referents:
            cls: type = type(each)
            holds = kinds.get(cls)
            if holds is None:
                holds = kinds[cls] = _holds(cls, stops)
            if holds and id(each) not in seen and not (cls in _SIZED and _is_passed_over(each)):
                seen.add(id(each))
                nodes.append(each)
    return nodes


def _holds(cls: type, stops: tuple[type, ...]) -> bool:
    # A class or a module is alive, or may as well be: behind it lies most of the process.
    return bool(cls.__flags__ & _HAS_REFERENTS) and not issubclass(cls, (type, ModuleType, CodeType, *stops))


def _is_passed_over(container: Any) -> bool:
    """Whether it is a module's globals, which every function holds, or too large."""
    return len(container) > SURVEY_CONTAINER_ITEMS_MAX or (type(container) is dict and "__builtins__" in container)


def _snapshot(nodes: list[Any]) -> tuple[list[int], list[list[Any]]]:
    """How often each is held, and what it holds. Adds one to ``nodes`` that nothing else holds, to compare with."""
    nodes.append(object())
    with _collector_stopped:
        was_enabled = gc.isenabled()
        # A collection runs finalizers, which may do anything.
        gc.disable()
        try:
            # All of it is done by the outer list, in C: counts first, as what comes after holds what it names.
            looks: tuple[Iterable[Any], ...] = (map(sys.getrefcount, nodes), map(gc.get_referents, nodes))
            counts, referents = list(map(list, looks))
        finally:
            if was_enabled:
                gc.enable()
    return counts, referents


def _reach(starts: Iterable[int], edges: list[list[int]], seen: bytearray) -> None:
    """Marks all that can be got to from ``starts`` without passing through what is marked."""
    left = [*starts]
    while left:
        at = left.pop()
        if not seen[at]:
            seen[at] = 1
            left += edges[at]


def _closure(start: int, edges: list[list[int]], barred: bytearray, looks_max: int) -> set[int]:
    """What can be got to from ``start`` past what is barred; or enough of it to show that that is too much."""
    found: set[int] = set()
    left = [start]
    while left and looks_max >= 0:
        at = left.pop()
        if not barred[at] and at not in found:
            found.add(at)
            looks_max -= len(edges[at])
            left += edges[at]
    return found
