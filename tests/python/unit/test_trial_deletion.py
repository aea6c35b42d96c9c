"""What holds stand-ins, on graphs of Python's own objects, compared with a model that knows how they were made."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_airlock.calls.trial_deletion import find_holdings


class Export:
    """What the table of exported objects holds."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class StandIn:
    __slots__ = ("__weakref__", "ready")

    def __init__(self) -> None:
        self.ready: list[Any] = []


class Plain:
    def get(self) -> Any:
        return self


def as_list() -> tuple[Any, Callable[[Any], object]]:
    node: list[Any] = []
    return node, node.append


def as_dict() -> tuple[Any, Callable[[Any], object]]:
    node: dict[int, Any] = {}
    return node, lambda value: node.__setitem__(len(node), value)


def as_attributes() -> tuple[Any, Callable[[Any], object]]:
    node = Plain()
    return node, lambda value: setattr(node, f"held{len(vars(node))}", value)


def as_closure() -> tuple[Any, Callable[[Any], object]]:
    held: list[Any] = []
    return lambda: held, held.append


def as_method() -> tuple[Any, Callable[[Any], object]]:
    node = Plain()
    return node.get, lambda value: setattr(node, f"held{len(vars(node))}", value)


def as_partial() -> tuple[Any, Callable[[Any], object]]:
    held: list[Any] = []
    return partial(print, held), held.append


def as_generator() -> tuple[Any, Callable[[Any], object]]:
    def suspended() -> Iterator[Any]:
        held: list[Any] = []
        yield held
        yield held

    running = suspended()
    return running, next(running).append


def as_exception() -> tuple[Any, Callable[[Any], object]]:
    held: list[Any] = []
    try:
        raise ValueError(held)
    except ValueError as error:
        return error.with_traceback(None), held.append


KINDS = (as_list, as_dict, as_attributes, as_closure, as_method, as_partial, as_generator, as_exception)


class Shape(NamedTuple):
    """A graph: nodes of these kinds, the last so many of them stand-ins; who holds whom; what is exported and kept."""

    kinds: list[int]
    stand_ins: int
    edges: list[tuple[int, int]]
    exported: list[int]
    kept: list[int]

    def reach(self, starts: set[int]) -> set[int]:
        found: set[int] = set()
        left = set(starts)
        while left:
            at = left.pop()
            found.add(at)
            left |= {to for start, to in self.edges if start == at} - found
        return found

    def stand_ins_within(self, nodes: set[int]) -> set[tuple[int, int]]:
        return {(0, at) for at in nodes if at >= len(self.kinds)}

    @property
    def rooted(self) -> set[tuple[int, int]]:
        return self.stand_ins_within(self.reach(set(self.kept)))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    kinds = draw(st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=12))
    stand_ins = draw(st.integers(1, 6))
    any_node = st.integers(0, len(kinds) + stand_ins - 1)
    edges = draw(st.lists(st.tuples(any_node, any_node), max_size=30))
    exported = draw(st.lists(any_node, min_size=1, max_size=5))
    return Shape(kinds, stand_ins, edges, exported, draw(st.lists(any_node, max_size=3)))


Made = tuple[dict[int, Any], dict[int, Any], list[Any]]


def build(shape: Shape) -> Made:
    """The exported objects, the stand-ins, and what else is held. Nothing else holds anything of it."""
    nodes: list[Any] = []
    hold: list[Callable[[Any], object]] = []
    for kind in shape.kinds:
        node, keeps = KINDS[kind]()
        nodes.append(node)
        hold.append(keeps)
    for _ in range(shape.stand_ins):
        stand_in = StandIn()
        nodes.append(stand_in)
        hold.append(stand_in.ready.append)
    for start, to in shape.edges:
        hold[start](nodes[to])
    exports = {number: Export(nodes[at]) for number, at in enumerate(shape.exported)}
    stand_ins = {at: nodes[at] for at in range(len(shape.kinds), len(nodes))}
    return exports, stand_ins, [nodes[at] for at in shape.kept]


def made(shape: Shape) -> Made:
    """The graph, without what nothing holds any more: until it is collected, that holds on to what it does."""
    graph = build(shape)
    gc.collect()
    return graph


@given(shapes())
def test_what_is_rooted_and_who_holds_the_rest_is_found_exactly(shape: Shape) -> None:
    exports, stand_ins, kept = made(shape)
    found = find_holdings([exports], [stand_ins])
    assert found.rooted == shape.rooted
    expected = {
        (0, number): shape.stand_ins_within(shape.reach({at})) - shape.rooted
        for number, at in enumerate(shape.exported)
    }
    assert found.reached == expected
    del kept


@given(shapes(), st.integers(0, 60))
def test_bounded_look_takes_nothing_that_is_held_for_free(shape: Shape, references_max: int) -> None:
    exports, stand_ins, kept = made(shape)
    found = find_holdings([exports], [stand_ins], references_max=references_max)
    assert found.rooted >= shape.rooted
    for number, at in enumerate(shape.exported):
        held = shape.stand_ins_within(shape.reach({at}))
        # What an exported object holds is known to be held by it, or held for good.
        assert held <= found.rooted | found.reached[0, number]
        assert found.reached[0, number] <= held
    del kept


def test_variable_of_a_running_function_roots() -> None:
    stand_in = StandIn()
    assert find_holdings([{}], [{2: stand_in}]) == ({(0, 2)}, {})


def test_stack_of_another_thread_roots() -> None:
    table = {2: StandIn()}
    has_it, may_go = threading.Event(), threading.Event()

    def hold(stand_in: StandIn) -> None:
        has_it.set()
        may_go.wait(20)
        del stand_in

    thread = threading.Thread(target=lambda: hold(table[2]))
    thread.start()
    has_it.wait(20)
    assert find_holdings([{}], [table]).rooted == {(0, 2)}
    may_go.set()
    thread.join()
    assert find_holdings([{}], [table]).rooted == set()


def test_stop_hides_what_lies_behind_it_which_is_then_held_for_good() -> None:
    class Stop:
        def __init__(self, value: Any) -> None:
            self.value = value

    stand_ins = {2: StandIn()}
    exports = {1: Export(Stop([stand_ins[2]]))}
    assert find_holdings([exports], [stand_ins]) == (set(), {(0, 1): {(0, 2)}})
    assert find_holdings([exports], [stand_ins], (Stop,)) == ({(0, 2)}, {(0, 1): set()})


def test_globals_of_a_function_and_large_containers_are_not_looked_into() -> None:
    stand_ins = {2: StandIn()}
    space: dict[str, Any] = {"held": stand_ins[2]}
    exec("def function(): return held", space)
    large = [stand_ins[2], *range(20_000)]
    for value in (space.pop("function"), large):
        found = find_holdings([{1: Export(value)}], [stand_ins])
        assert found == ({(0, 2)}, {(0, 1): set()})


def test_table_that_an_exported_object_leads_to_counts_once_and_leads_nowhere() -> None:
    stand_ins = {2: StandIn()}
    exports: dict[int, Any] = {1: Export([stand_ins[2]])}
    exports[3] = Export([exports])
    assert find_holdings([exports], [stand_ins]) == (set(), {(0, 1): {(0, 2)}, (0, 3): set()})


def test_many_objects_that_each_hold_much_are_bounded() -> None:
    stand_ins = {2: StandIn()}
    shared: list[Any] = [stand_ins[2]]
    for _ in range(50):
        shared = [shared] * 2
    exports = {number: Export(shared) for number in range(200)}
    del shared
    # Looked at for a few of them only, and for good for the others.
    found = find_holdings([exports], [stand_ins], references_max=1000)
    assert found.rooted == {(0, 2)}


@pytest.mark.parametrize("is_enabled", [True, False])
def test_pythons_collector_is_left_as_it_was(is_enabled: bool) -> None:
    (gc.enable if is_enabled else gc.disable)()
    try:
        find_holdings([{}], [{}])
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()


def test_other_threads_change_nothing_in_between() -> None:
    table = {2: StandIn()}
    # Held for good, and now and then by what is exported, too. Counted before that, it would seem held by that alone.
    held = [table[2]]
    exports = {1: Export([]), 3: Export([[each] for each in range(3000)])}
    is_over = threading.Event()

    def change() -> None:
        while not is_over.is_set():
            exports[1].value.append(held[0])
            # Python lets another thread run where one loops.
            for _ in range(20):
                pass
            exports[1].value.pop()

    thread = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        for _ in range(50):
            assert find_holdings([exports], [table]).rooted == {(0, 2)}
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(interval)
