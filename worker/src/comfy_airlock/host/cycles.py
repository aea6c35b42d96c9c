"""Which of a host's stand-ins lie on a cycle of references that nothing else holds: pure, over surveys of all sides.

A host is the hub: a cycle over several processes passes through it, and there through stand-ins, each of which holds an
object of a worker's, which holds objects of the host's, which hold stand-ins. Surveys that show the same exchange are
one instant of all these processes, and what nobody can get at then nobody ever can.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from comfy_airlock.calls.survey import WorkerSurvey
from comfy_airlock.calls.trial_deletion import Holdings, Key

Graph = dict[Key, set[Key]]
"""Stand-ins, each with those that it holds by way of its worker and this host."""


def find_cycles(host: Holdings, workers: Sequence[WorkerSurvey]) -> set[Key]:
    """The stand-ins that are held by nothing but cycles that they are on themselves.

    Args:
        host: by the same places as ``workers``. What other sides hold of the host counts as rooted there.
    """

    def held_through(place: int, numbers: Iterable[int]) -> set[Key]:
        """The stand-ins that objects of the host's hold which a worker holds."""
        return {key for number in numbers for key in host.reached.get((place, number), ())}

    rooted = set(host.rooted)
    for place, worker in enumerate(workers):
        rooted |= held_through(place, worker.rooted)
    graph: Graph = {}
    left = {*rooted, *(key for held in host.reached.values() for key in held)}
    while left:
        place, number = key = left.pop()
        if key not in graph:
            graph[key] = held_through(place, workers[place].reached.get(number, ()))
            left |= graph[key]
    for key in _reached(rooted, graph):
        del graph[key]
    return set(_beyond_cycles(_turned(_beyond_cycles(graph))))


def _reached(starts: set[Key], graph: Graph) -> set[Key]:
    found: set[Key] = set()
    left = set(starts)
    while left:
        key = left.pop()
        found.add(key)
        left |= graph[key] - found
    return found


def _beyond_cycles(graph: Graph) -> Graph:
    """What is left once all is taken away, one after the other, that nothing holds: cycles, and what they hold."""
    graph = {key: held & graph.keys() for key, held in graph.items()}
    holders: dict[Key, int] = defaultdict(int)
    for held in graph.values():
        for key in held:
            holders[key] += 1
    free = [key for key in graph if not holders[key]]
    while free:
        for key in graph.pop(free.pop()):
            holders[key] -= 1
            if not holders[key]:
                free.append(key)
    return graph


def _turned(graph: Graph) -> Graph:
    turned: Graph = {key: set() for key in graph}
    for key, held in graph.items():
        for each in held:
            turned[each].add(key)
    return turned
