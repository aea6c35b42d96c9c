"""Cycles of references over real processes: freed by both sides, unless something holds them or uses them meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, connect
from comfy_airlock.host import collector as collector_module
from comfy_airlock.host.collector import Collector
from processes import SECONDS_MAX, until
from routes import FOLDER, connect_by, pair_of

WAYS_THERE = ("attribute", "list", "dict", "closure", "method", "generator")


class Mine:
    """An object of the host's."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def get(self) -> Any:
        return self.held


def as_object(mine: Mine) -> Any:
    return mine


def as_method(mine: Mine) -> Any:
    return mine.get


def as_closure(mine: Mine) -> Any:
    return lambda: mine


WAYS_HERE = (as_object, as_method, as_closure)


@pytest.fixture(scope="module", params=["line", "relay"])
def airlock(request: pytest.FixtureRequest) -> Iterator[Airlock]:
    with connect_by(request.param) as connected:
        connected.open(FOLDER).call("Echo")
        yield connected


@pytest.fixture
def pack(airlock: Airlock) -> Pack:
    return airlock.open(FOLDER)


def value_of(pack: Pack, node: str, **inputs: Any) -> Any:
    (value,) = pack.call(node, **inputs)
    return value


def tie(pack: Pack, how: str = "attribute", here: Callable[[Mine], Any] = as_object) -> weakref.ref[Mine]:
    """An object of this host's and one of the pack's that hold each other; nothing else holds either."""
    mine = Mine()
    mine.held.append(value_of(pack, "MakeThing"))
    pack.call("Tie", thing=mine.held[0], value=here(mine), how=how)
    return weakref.ref(mine)


def is_gone(pack: Pack, mine: weakref.ref[Mine]) -> bool:
    return mine() is None and value_of(pack, "CountThings") == 0 and pair_of(pack).references.counts == (0, 0)


@pytest.mark.parametrize("here", WAYS_HERE)
@pytest.mark.parametrize("there", WAYS_THERE)
def test_cycle_is_freed_on_both_sides(airlock: Airlock, pack: Pack, there: str, here: Callable[[Mine], Any]) -> None:
    mine = tie(pack, there, here)
    assert value_of(pack, "CountThings") == 1
    assert airlock.collect() == 1
    until(lambda: is_gone(pack, mine))
    assert airlock.collect() == 0


def test_host_that_collects_frees_nothing_that_is_held_on_either_side(airlock: Airlock, pack: Pack) -> None:
    in_variable = tie(pack)
    variable = in_variable()
    in_pack = tie(pack)
    held = in_pack()
    assert held is not None
    pack.call("Hold", value=held.held[0])
    del held
    assert airlock.collect() == 0
    assert variable is not None
    for each in (in_variable, in_pack):
        still = each()
        assert still is not None
        assert still.held[0].greet("you") == "thing greets you!"
        del still
    del variable
    pack.call("TakeHeld")
    until(lambda: airlock.collect() == 2)
    until(lambda: is_gone(pack, in_variable) and is_gone(pack, in_pack))


def test_cycle_on_a_threads_stack_or_in_a_coroutine_that_waits_is_held(airlock: Airlock, pack: Pack) -> None:
    on_stack, in_coroutine = tie(pack), tie(pack)
    may_go, are_there = threading.Event(), threading.Barrier(3)

    def hold(mine: Mine | None) -> str:
        are_there.wait(SECONDS_MAX)
        assert may_go.wait(SECONDS_MAX)
        assert mine is not None
        return str(mine.held[0].greet("you"))

    async def hold_awaiting(mine: Mine | None) -> str:
        are_there.wait(SECONDS_MAX)
        await asyncio.to_thread(may_go.wait, SECONDS_MAX)
        assert mine is not None
        return str(await mine.held[0].greet.acall("you"))

    with ThreadPoolExecutor(2, "airlock-test") as pool:
        said = [
            pool.submit(lambda: hold(on_stack())),
            pool.submit(lambda: asyncio.run(hold_awaiting(in_coroutine()))),
        ]
        are_there.wait(SECONDS_MAX)
        assert airlock.collect() == 0
        may_go.set()
        assert [each.result(SECONDS_MAX) for each in said] == ["thing greets you!"] * 2
        said.clear()
    until(lambda: airlock.collect() + sum(each() is not None for each in (on_stack, in_coroutine)) == 0)
    until(lambda: is_gone(pack, on_stack) and is_gone(pack, in_coroutine))


def test_cycle_over_two_packs_is_freed(airlock: Airlock, pack: Pack, tmp_path: Path) -> None:
    other = airlock.open(shutil.copytree(FOLDER, tmp_path / "other"))
    try:
        here, there = value_of(pack, "MakeThing"), value_of(other, "MakeThing")
        pack.call("Tie", thing=here, value=there)
        other.call("Tie", thing=there, value=here)
        assert airlock.collect() == 0
        del here, there
        assert airlock.collect() == 2
        until(lambda: value_of(pack, "CountThings") == value_of(other, "CountThings") == 0)
    finally:
        other.close()


def between_surveys(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Has this done when the workers were surveyed, and this process is still to be."""
    ask = Collector._ask

    def ask_and_act(self: Collector, is_thorough: bool) -> Any:
        answers = ask(self, is_thorough)
        action()
        return answers

    monkeypatch.setattr(Collector, "_ask", ask_and_act)


def test_call_between_the_surveys_stops_the_freeing(
    airlock: Airlock, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tie(pack)
    with monkeypatch.context() as patch:
        between_surveys(patch, lambda: pack.call("Hold", value=mine()))
        assert airlock.collect() == 0
    (held,) = value_of(pack, "TakeHeld")
    assert held is mine()
    assert held.held[0].greet("you") == "thing greets you!"
    del held
    until(lambda: airlock.collect() == 1)
    until(lambda: is_gone(pack, mine))


def test_worker_that_dies_between_the_surveys_takes_its_objects_along(
    airlock: Airlock, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tie(pack)
    references = pair_of(pack).references

    def kill() -> None:
        os.kill(pack.describe()["pid"], signal.SIGKILL)
        until(lambda: references.counts == (0, 0))

    with monkeypatch.context() as patch:
        between_surveys(patch, kill)
        assert airlock.collect() == 0
    until(lambda: mine() is None)
    # The next worker has cycles of its own.
    fresh = tie(pack)
    until(lambda: airlock.collect() == 1)
    until(lambda: is_gone(pack, fresh))


def test_pack_at_work_is_left_out_and_comes_to_no_harm(
    airlock: Airlock, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "SURVEY_SECONDS_MAX", 0.05)
    mine = tie(pack)
    began, may_go = threading.Event(), threading.Event()

    def wait() -> bool:
        began.set()
        return may_go.wait(SECONDS_MAX)

    with ThreadPoolExecutor(1, "airlock-test") as pool:
        works = pool.submit(value_of, pack, "Call", function=wait, args=[])
        assert began.wait(SECONDS_MAX)
        assert airlock.collect() == 0
        may_go.set()
        assert works.result(SECONDS_MAX) is True
    until(lambda: airlock.collect() == 1)
    until(lambda: is_gone(pack, mine))


def test_cycles_are_found_unasked_and_nothing_is_left_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "CYCLES_QUIET_SECONDS", 0.05)
    threads = threading.active_count()
    with connect() as connected:
        pack = connected.open(FOLDER)
        mine = tie(pack)
        until(lambda: mine() is None)
        until(lambda: pair_of(pack).references.counts == (0, 0))
        held = tie(pack)()
        assert held is not None
        # Looked for as long as they hold each other.
        time.sleep(0.3)
        assert held.held[0].greet("you") == "thing greets you!"
    until(lambda: threading.active_count() <= threads + ("airlock-releases" in _names()))


def _names() -> set[str]:
    return {each.name for each in threading.enumerate()}
