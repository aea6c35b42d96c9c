"""Workers' lives as a Python host sees them: when they end for want of work, and what a host is told of a held pack."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, PackHeld, WorkerDied, connect
from processes import is_running, until

PACKS = Path(__file__).resolve().parents[2] / "packs"
IDLE_SECONDS = 0.3
"""What the keeper's manifest sets."""


@pytest.fixture
def host() -> Iterator[Airlock]:
    with connect() as connected:
        yield connected


@pytest.fixture
def keeper(host: Airlock) -> Pack:
    return host.open(PACKS / "keeper")


def worker(host: Airlock) -> dict[str, Any]:
    ((only,),) = [pack["workers"] for pack in host.status()["packs"]]
    assert isinstance(only, dict)
    return only


def test_worker_without_work_ends_after_the_time_that_its_manifest_sets(host: Airlock, keeper: Pack) -> None:
    # The first goes over the relay, the second over the line.
    (pid,), (again,) = keeper.call("Pid"), keeper.call("Pid")
    assert pid == again
    until(lambda: worker(host)["pid"] == 0)
    until(lambda: not is_running(pid))
    assert keeper.call("Pid") != (pid,)
    assert worker(host)["deaths"] == 0


def test_worker_lives_on_while_its_host_holds_an_object_of_its_own(host: Airlock, keeper: Pack) -> None:
    (pid,) = keeper.call("Pid")
    (thing,) = keeper.call("Lend")
    time.sleep(3 * IDLE_SECONDS)
    assert thing.pid() == pid
    del thing
    gc.collect()
    until(lambda: worker(host)["pid"] == 0)


def test_worker_lives_on_while_it_holds_an_object_of_its_hosts_or_a_node_keeps_something(
    host: Airlock, keeper: Pack
) -> None:
    keeper.call("Count")
    time.sleep(3 * IDLE_SECONDS)
    assert keeper.call("Count") == (2,)
    keeper.call("Hold", value=lambda: None)
    time.sleep(3 * IDLE_SECONDS)
    assert keeper.call("Hold", value=None) == (2,)
    assert worker(host)["restarts"] == 0


def test_no_call_is_lost_that_comes_just_as_its_worker_ends(host: Airlock, keeper: Pack) -> None:
    pids: set[int] = set()
    # Around the time that it ends after, again and again.
    for turn in range(12):
        pids.update(keeper.call("Pid"))
        time.sleep(IDLE_SECONDS - 0.01 + 0.002 * turn)
    assert worker(host)["deaths"] == 0
    assert len(pids) == worker(host)["restarts"] + 1


def test_pack_whose_workers_keep_dying_is_held_until_it_is_edited(host: Airlock, tmp_path: Path) -> None:
    folder = tmp_path / "probe"
    shutil.copytree(PACKS / "probe", folder)
    pack = host.open(folder)
    for _ in range(5):
        with pytest.raises(WorkerDied):
            pack.call("End", how="_exit")
    with pytest.raises(PackHeld, match="the last one: exit code 3") as caught:
        pack.call("Echo", value=1)
    assert "airlock restart probe" in (caught.value.hint or "")
    assert worker(host)["state"] == "held"
    later = time.time() + 5
    os.utime(folder / "nodes.py", (later, later))
    assert pack.call("Echo", value=1) == (1,)
