"""What a worker's allocator keeps of large tensors: for how long, and how much."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from comfy_airlock.memory import recycling
from comfy_airlock.memory.recycling import LARGE_BYTES, Glibc, Recycling, recycling_here
from comfy_airlock.memory.room import Room

MAX = 1000


class Kept:
    """An allocator as a test wants it."""

    def __init__(self) -> None:
        self.kept = 0
        self.said: list[str] = []

    def keep_large(self, bytes_max: int) -> None:
        self.said.append(f"keep {bytes_max}")

    def kept_bytes(self) -> int:
        return self.kept

    def trim(self) -> None:
        self.said.append("trim")


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.looks: list[float] = []
        self.allocator = Kept()
        self.recycling = Recycling(self.allocator, self.looks.append, MAX)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def look(self) -> None:
        """As the thread that looks does, when it is time."""
        self.now += self.looks.pop()
        self.recycling.look()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_small_tensors_change_nothing(rig: Rig) -> None:
    rig.recycling.on_bytes(LARGE_BYTES - 1)
    assert (rig.allocator.said, rig.looks) == ([], [])


def test_large_blocks_are_kept_while_large_tensors_come_and_given_back_after_a_while(rig: Rig) -> None:
    for _ in range(3):
        rig.recycling.on_bytes(LARGE_BYTES)
    assert (rig.allocator.said, rig.looks) == (["keep 1000"], [0.2])
    while rig.now < 101.5:
        rig.look()
    assert rig.allocator.said == ["keep 1000"]
    while "keep 0" not in rig.allocator.said:
        rig.look()
    assert rig.now == pytest.approx(102, abs=0.3)
    while rig.looks:
        rig.look()
    assert rig.allocator.said == ["keep 1000", "keep 0", "trim"]
    assert rig.now == pytest.approx(130, abs=2.5)


def test_more_than_may_be_kept_is_given_back_at_once(rig: Rig) -> None:
    rig.recycling.on_bytes(LARGE_BYTES)
    rig.allocator.kept = MAX
    rig.look()
    assert rig.allocator.said == ["keep 1000"]
    rig.allocator.kept = MAX + 1
    rig.look()
    assert rig.allocator.said == ["keep 1000", "trim"]
    assert rig.looks == [0.2]


def test_what_comes_later_is_kept_again_and_looked_at_by_one(rig: Rig) -> None:
    rig.recycling.on_bytes(LARGE_BYTES)
    while "keep 0" not in rig.allocator.said:
        rig.look()
    rig.recycling.on_bytes(LARGE_BYTES)
    assert rig.allocator.said == ["keep 1000", "keep 0", "keep 1000"]
    assert len(rig.looks) == 1
    while rig.looks:
        rig.look()
    rig.recycling.on_bytes(LARGE_BYTES)
    assert rig.looks == [0.2]


@pytest.mark.parametrize(
    ("limit", "room", "expected"),
    [(None, 1 << 50, 1 << 30), (4 << 30, 1 << 50, 1 << 29), (None, 1 << 30, 1 << 28), (None, None, 1 << 30)],
)
def test_how_much_may_be_kept_depends_on_what_there_is(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, room: int | None, expected: int
) -> None:
    monkeypatch.setattr(recycling, "total_bytes", lambda: 16 << 30)
    monkeypatch.setattr(recycling, "memory_room", lambda: None if room is None else Room(room, "this test"))
    monkeypatch.setattr(Glibc, "of_this_process", staticmethod(Kept))
    made = recycling_here(lambda _: None, limit)
    assert made is not None
    assert made._bytes_max == expected


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Glibc, "of_this_process", staticmethod(lambda: None))
    assert recycling_here(lambda _: None, None) is None


_KEEPING = """
from comfy_airlock.memory.recycling import Glibc
MiB = 1 << 20
glibc = Glibc.of_this_process()
if glibc is None:
    raise SystemExit("another allocator")

def kept_of_one():
    block = bytearray(b"x") * (200 * MiB)
    assert len(block) == 200 * MiB
    del block
    return glibc.kept_bytes()

assert kept_of_one() < 50 * MiB
glibc.keep_large(1 << 30)
assert kept_of_one() >= 199 * MiB
assert kept_of_one() < 250 * MiB, "it lies where the first one did"
glibc.trim()
assert glibc.kept_bytes() < 50 * MiB
kept_of_one()
glibc.keep_large(0)
glibc.trim()
assert kept_of_one() < 50 * MiB
print("done")
"""


def test_glibc_keeps_what_is_freed_as_long_as_it_is_told_to() -> None:
    if Glibc.of_this_process() is None:
        pytest.skip("this Python is linked with another C library than glibc 2.33 or later")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _KEEPING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
