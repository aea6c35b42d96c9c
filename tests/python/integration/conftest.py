"""A server of the test session's own, in a process, and the packs that it runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_airlock import Airlock, Pack, connect
from command import ROOT, own_command
from processes import is_running, until

PACKS = ROOT / "tests" / "packs"


@pytest.fixture(scope="session", autouse=True)
def airlock_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ``airlock`` command of this checkout, with folders of its own."""
    with own_command(tmp_path_factory.mktemp("command")) as command:
        yield command


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left(airlock_command: Path) -> Iterator[None]:
    """After all tests: no server and no worker of theirs runs. While they run, fixtures keep some across tests."""
    del airlock_command
    mark = f"AIRTEST_{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(mark, "1")
        yield
    until(lambda: not _processes_with(mark))


def _processes_with(mark: str) -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{mark}=1".encode() in (entry / "environ").read_bytes() and is_running(int(entry.name)):
                found.append(f"{entry.name}: {(entry / 'cmdline').read_bytes()!r}")
        except OSError:
            continue  # It has ended.
    return found


@pytest.fixture(scope="module")
def airlock() -> Iterator[Airlock]:
    with connect() as connected:
        # Their lines, and memory to share, are there before the first test looks for what it leaves behind.
        for pack in ("probe", "arrays"):
            connected.open(PACKS / pack).describe()
        for size in (1 << 17, 1 << 21):
            connected.open(PACKS / "arrays").call("Echo", value=bytes(size))
        yield connected


@pytest.fixture
def probe(airlock: Airlock) -> Pack:
    return airlock.open(PACKS / "probe")


@pytest.fixture
def arrays(airlock: Airlock) -> Pack:
    return airlock.open(os.fspath(PACKS / "arrays"))


def has_no_leases(airlock: Airlock) -> bool:
    """Whether neither this host nor its workers hold anything of the other."""
    gc.collect()
    report = airlock.memory()
    return report["leases_given"] == report["leases_held"] == 0
