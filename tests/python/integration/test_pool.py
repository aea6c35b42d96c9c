"""Packs with several workers, and with a process for each call: a Python host and real workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Cancelled, DeadlineExceeded, Pack, WorkerDied, connect
from processes import is_running, until

from .conftest import PACKS

MANIFEST = """
[project]
name = "pool"

[tool.comfy.isolation]
can_isolate = true
"""


@pytest.fixture
def host() -> Iterator[Airlock]:
    """One for each test: what its workers keep ends with it."""
    with connect() as connected:
        yield connected


@pytest.fixture
def pool(host: Airlock) -> Pack:
    return host.open(PACKS / "pool")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def opened(host: Airlock, folder: Path, *lines: str) -> Pack:
    """The pool pack under another manifest."""
    shutil.copytree(PACKS / "pool", folder / "pool")
    (folder / "pool" / "pyproject.toml").write_text(MANIFEST + "\n".join(lines) + "\n")
    return host.open(folder / "pool")


def meet(pack: Pack, folder: Path, count: int = 3) -> list[int]:
    """The processes of calls that all wait for each other."""
    with ThreadPoolExecutor(count) as threads:
        calls = [threads.submit(pack.call, "Meet", folder=str(folder), count=count) for _ in range(count)]
        return [call.result()[0] for call in calls]


# Several workers


def test_as_many_synchronous_calls_run_side_by_side_as_there_are_workers(pool: Pack, marks: Path) -> None:
    assert len(set(meet(pool, marks))) == 3


def test_coroutines_are_spread_too(pool: Pack, marks: Path) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(pool.acall("Meet", folder=str(marks), count=3) for _ in range(3)))

    assert len(set(asyncio.run(together()))) == 3


def test_calls_that_follow_one_another_start_no_second_worker(pool: Pack) -> None:
    assert len({pool.call("Pid") for _ in range(3)}) == 1


def test_sticky_nodes_calls_go_where_the_first_one_went(pool: Pack, marks: Path) -> None:
    meet(pool, marks)
    with ThreadPoolExecutor(6) as threads:
        calls = [threads.submit(pool.call, "Remember") for _ in range(6)]
        answers = [call.result() for call in calls]
    assert len({pid for pid, _ in answers}) == 1
    assert sorted(count for _, count in answers) == [1, 2, 3, 4, 5, 6]


def test_sticky_nodes_home_is_another_once_its_worker_has_died(host: Airlock, pool: Pack) -> None:
    home, _ = pool.call("Remember")
    os.kill(home, signal.SIGKILL)
    until(lambda: all(worker["pid"] != home for worker in host.status()["packs"][0]["workers"]))
    again, count = pool.options(timeout=20).call("Remember")
    assert (again != home, count) == (True, 1)
    assert pool.call("Remember") == (again, 2)


def test_objects_go_home_to_their_process_and_also_in_lists(pool: Pack, marks: Path) -> None:
    meet(pool, marks)
    with ThreadPoolExecutor(3) as threads:
        made = [call.result() for call in [threads.submit(pool.call, "MakeThing") for _ in range(3)]]
    for thing, pid in made:
        assert thing.pid() == pid
        assert pool.call("UseThing", value=thing) == (True, pid)
        assert pool.call("UseThing", value=[thing]) == (True, pid)


def test_what_a_callback_calls_goes_to_where_the_call_waits_that_it_answers(pool: Pack, marks: Path) -> None:
    meet(pool, marks)
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(pool.call, "CallBack", function=lambda: pool.call("Pid")[0]) for _ in range(3)]
        for call in calls:
            inner, outer = call.result()
            assert inner == outer


def test_events_reach_all_that_run_and_are_heard_from_all(pool: Pack, marks: Path) -> None:
    pids = meet(pool, marks)
    heard: list[int] = []
    pool.on("heard", lambda said: heard.append(said[1]))

    async def listen() -> None:
        # Of as many calls at once each goes to another.
        await asyncio.gather(*(pool.acall("Listen") for _ in pids))

    asyncio.run(listen())
    pool.emit("asked", 1)
    until(lambda: len(heard) == 3)
    assert sorted(heard) == sorted(pids)


def test_two_who_open_a_pack_share_what_is_known_of_its_workers(host: Airlock, pool: Pack, marks: Path) -> None:
    again = host.open(PACKS / "pool")
    home, _ = pool.call("Remember")
    meet(pool, marks)
    assert again.call("Remember") == (home, 2)


# Calls that may be repeated


def test_idempotent_call_is_made_again_where_its_worker_died(pool: Pack, marks: Path) -> None:
    assert is_running(pool.call("DieIdempotent", folder=str(marks))[0])
    assert len(list(marks.iterdir())) == 2
    assert is_running(asyncio.run(pool.acall("DieIdempotent", folder=str(marks), count=3))[0])
    assert len(list(marks.iterdir())) == 4


def test_idempotent_call_is_made_again_once(pool: Pack, marks: Path) -> None:
    with pytest.raises(WorkerDied):
        pool.options(timeout=60).call("DieIdempotent", folder=str(marks), count=9)
    assert len(list(marks.iterdir())) == 2


def test_call_that_held_references_is_not_repeated(pool: Pack, marks: Path) -> None:
    with pytest.raises(WorkerDied):
        pool.call("DieIdempotent", folder=str(marks), value=iter([1]))
    assert len(list(marks.iterdir())) == 1


def test_no_other_node_is_called_again_not_even_in_a_pack_of_one_worker(
    host: Airlock, marks: Path, tmp_path: Path
) -> None:
    pack = opened(host, tmp_path, "[tool.comfy.isolation.nodes]", "DieIdempotent = { idempotent = true }")
    with pytest.raises(WorkerDied):
        pack.call("Die", folder=str(marks))
    assert len(list(marks.iterdir())) == 1
    pack.call("DieIdempotent", folder=str(marks), count=2)
    assert len(list(marks.iterdir())) == 3


# A process for each call


def test_each_call_has_a_new_process_and_the_old_one_ends(host: Airlock, tmp_path: Path) -> None:
    pack = opened(host, tmp_path, "fresh_process = true")
    (first,) = pack.call("Pid")
    (second,) = pack.call("Pid")
    assert first != second
    assert not is_running(first)


def test_process_is_kept_as_long_as_something_of_it_is_held(host: Airlock, tmp_path: Path) -> None:
    pack = opened(host, tmp_path, "fresh_process = true", "workers = 2")
    thing, pid = pack.call("MakeThing")
    assert pack.call("Pid") != (pid,)
    assert thing.pid() == pid
    assert pack.call("UseThing", value=thing) == (True, pid)
    assert is_running(pid)
    del thing
    until(lambda: not is_running(pid))


class Held:
    """A call that keeps the only process busy until it is told."""

    def __init__(self, pack: Pack) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self._pack = pack
        self._thread = threading.Thread(target=self._call)

    def _call(self) -> None:
        self._pack.call("CallBack", function=self._wait)

    def _wait(self) -> None:
        self.began.set()
        self.release.wait(20)

    def __enter__(self) -> Held:
        self._thread.start()
        assert self.began.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._thread.join(20)


def test_calls_wait_in_order_and_give_up_in_time(host: Airlock, tmp_path: Path) -> None:
    pack = opened(host, tmp_path, "fresh_process = true")
    order: list[str] = []

    async def waiting(name: str) -> None:
        await pack.acall("Pid")
        order.append(name)

    async def queue(held: Held) -> None:
        tasks = [asyncio.create_task(waiting(name)) for name in ("first", "second", "cancelled")]
        await asyncio.sleep(0)
        tasks.pop().cancel()
        with pytest.raises(DeadlineExceeded, match="deadline of 50 ms"):
            await pack.options(timeout=0.05).acall("Pid")
        held.release.set()
        await asyncio.gather(*tasks)

    with Held(pack) as held:
        with pytest.raises(DeadlineExceeded, match=r"^pack pool: the call took longer than its deadline of 50 ms"):
            pack.options(timeout=0.05).call("Pid")
        asyncio.run(queue(held))
    assert order == ["first", "second"]


def test_call_that_waits_ends_with_the_one_that_it_is_made_for(host: Airlock, pool: Pack, tmp_path: Path) -> None:
    fresh = opened(host, tmp_path, "fresh_process = true")
    errors: list[BaseException] = []
    waits = threading.Event()

    def within() -> None:
        waits.set()
        try:
            fresh.call("Pid")
        except BaseException as error:
            errors.append(error)
            raise

    async def give_up() -> None:
        call = asyncio.create_task(asyncio.to_thread(pool.options(timeout=0.5).call, "CallBack", function=within))
        with pytest.raises(DeadlineExceeded):
            await call

    with Held(fresh):
        asyncio.run(give_up())
        assert waits.is_set()
        until(lambda: bool(errors))
    assert isinstance(errors[0], (DeadlineExceeded, Cancelled))


def test_closing_the_connection_ends_calls_that_wait(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    waits = threading.Event()

    def wait(pack: Pack) -> None:
        waits.set()
        try:
            pack.call("Pid")
        except BaseException as error:
            errors.append(error)

    with connect() as host:
        pack = opened(host, tmp_path, "fresh_process = true")
        thing, _ = pack.call("MakeThing")
        thread = threading.Thread(target=wait, args=(pack,))
        thread.start()
        assert waits.wait(20)
    thread.join(20)
    assert not thread.is_alive()
    assert len(errors) == 1
    del thing


def test_process_that_died_makes_room_for_another(host: Airlock, marks: Path, tmp_path: Path) -> None:
    pack = opened(host, tmp_path, "fresh_process = true")
    with pytest.raises(WorkerDied):
        pack.call("Die", folder=str(marks))
    (pid,) = pack.options(timeout=20).call("Pid")
    assert type(pid) is int


def test_call_made_for_another_of_the_pack_joins_its_process(host: Airlock, tmp_path: Path) -> None:
    pack = opened(host, tmp_path, "fresh_process = true")
    inner, outer = pack.call("CallBack", function=lambda: pack.call("Pid")[0])
    assert inner == outer
