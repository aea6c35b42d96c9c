"""Tensors that a host and a worker with torch make in shared memory: what is copied of them, and what is kept."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, connect
from processes import until

from .conftest import has_no_leases

torch = pytest.importorskip("torch", reason="torch is not in this environment; `npm test` has one where it is")

MIB = 1 << 20
SHAPE = (1, 1024, 1024, 4)

_PACK = """
import os
import torch

KEPT = []

class Node:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    @classmethod
    def INPUT_TYPES(cls): return {"required": {"image": ("IMAGE",)}}

class Invert(Node):
    def run(self, image): return (1.0 - image,)

class Keep(Node):
    '''Keeps what it returns, and writes to it when it is called again.'''
    def run(self, image):
        for each in KEPT: each.fill_(-1.0)
        made = 1.0 - image
        KEPT.append(made)
        return (made,)

class Kept(Node):
    def run(self, image): return (all(bool((each == -1.0).all()) for each in KEPT[:-1]), len(KEPT))

class Fork(Node):
    '''Has a forked child look at what this makes, and write to it.'''
    def run(self, image):
        made = 1.0 - image
        first = float(made[0, 0, 0, 0])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                seen = float(made[0, 0, 0, 0])
                made[0, 0, 0, 0] = 77.0
                code = 0 if seen == first else 2
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return (made, code)

class Later(Node):
    async def run(self, image): return (1.0 - image,)

class Die(Node):
    '''Ends its process right after it has answered.'''
    def run(self, image):
        import threading
        threading.Timer(0.05, lambda: os._exit(3)).start()
        return (1.0 - image,)

NODE_CLASS_MAPPINGS = {each.__name__: each for each in (Invert, Keep, Kept, Fork, Later, Die)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nursery-pack")
    (folder / "__init__.py").write_text(_PACK)
    project = '[project]\nname = "nursery-pack"\nversion = "1.0"\n'
    isolation = "[tool.comfy.isolation]\ncan_isolate = true\nshare_torch = true\n"
    (folder / "pyproject.toml").write_text(project + isolation)
    return folder


@pytest.fixture(scope="module")
def pack(airlock: Airlock, folder: Path) -> Iterator[Pack]:
    pack = airlock.open(folder)
    for name in ("Invert", "Later"):
        warm(pack, name)
    yield pack
    pack.close()


@pytest.fixture(autouse=True)
def _nothing_is_held(airlock: Airlock) -> Iterator[None]:
    yield
    gc.collect()
    until(lambda: has_no_leases(airlock))


def warm(pack: Pack, name: str, turns: int = 4) -> None:
    for turn in range(turns):
        image = torch.full(SHAPE, float(turn))
        (result,) = pack.call(name, image=image)
        assert torch.equal(result, 1.0 - image)


def copied(airlock: Airlock) -> dict[str, int]:
    """Bytes that this host and its workers have copied so far, by name."""
    told = airlock._control.call("stats", (), {})
    workers = {
        f"{pack['name']} {worker['pid']}": worker["health"]["memory"]["copied_bytes"]
        for pack in told["packs"]
        for worker in pack["workers"]
        if worker["health"] and worker["health"]["memory"]
    }
    return {"host": airlock.memory()["copied_bytes"], **workers}


@pytest.mark.parametrize("name", ["Invert", "Later"])
def test_a_tensor_goes_there_and_another_comes_back_and_in_time_nothing_is_copied(
    airlock: Airlock, pack: Pack, name: str
) -> None:
    # How many blocks there have to be depends on how soon what was sent is returned.
    before: dict[str, int] = {}
    for _ in range(20):
        before = copied(airlock)
        warm(pack, name, 6)
        if copied(airlock) == before:
            return
    assert copied(airlock) == before


def test_what_a_host_writes_to_what_it_has_sent_no_worker_sees(pack: Pack) -> None:
    image = torch.zeros(SHAPE)
    for turn in range(4):
        (result,) = pack.call("Invert", image=image)
        assert torch.equal(result, torch.full(SHAPE, 1.0 - turn))
        image += 1.0


def test_what_a_pack_keeps_and_writes_to_the_host_does_not_see(pack: Pack) -> None:
    results: list[Any] = []
    for turn in range(5):
        results += pack.call("Keep", image=torch.full(SHAPE, float(turn)))
    for turn, result in enumerate(results):
        assert torch.equal(result, torch.full(SHAPE, 1.0 - turn))
    assert pack.call("Kept", image=torch.zeros(1)) == (True, 5)


def test_a_pack_that_forks_has_what_it_had_and_so_has_its_child(pack: Pack) -> None:
    for turn in range(4):
        result, code = pack.call("Fork", image=torch.full(SHAPE, float(turn)))
        assert code == 0
        assert torch.equal(result, torch.full(SHAPE, 1.0 - turn))


def test_a_result_survives_the_worker_that_made_it(pack: Pack) -> None:
    warm(pack, "Invert")
    (result,) = pack.call("Die", image=torch.full(SHAPE, 5.0))
    warm_again = 0
    while warm_again < 3:
        try:
            warm(pack, "Invert", 1)
        except Exception:
            continue
        warm_again += 1
    assert torch.equal(result, torch.full(SHAPE, -4.0))


def test_it_can_be_turned_off_in_a_host_and_for_a_pack(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_NURSERY", "0")
    for name in ("__init__.py", "pyproject.toml"):
        (tmp_path / name).write_text((folder / name).read_text())
    with (tmp_path / "pyproject.toml").open("a") as manifest:
        manifest.write('env = { AIRLOCK_NURSERY = "0" }\n')
    with connect() as host:
        pack = host.open(tmp_path)
        warm(pack, "Invert", 5)
        assert set(copied(host).values()) == {5 * 16 * MIB}
        pack.close()
        gc.collect()
