"""When a thread looks again and again for what is about to come, and when it had better sleep."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_airlock.wire import receiving
from comfy_airlock.wire.crowd import runnable_threads
from comfy_airlock.wire.receiving import Receiver


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets, joined."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, ends: tuple[socket.socket, socket.socket]) -> Receiver:
    """One that nothing comes to, on a machine of two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return Receiver(ends[0])


def crowd(monkeypatch: pytest.MonkeyPatch, *counts: int) -> list[int]:
    """So many threads want to run each time that they are counted; the last stays. Returns what is still to come."""
    left = [*counts]
    monkeypatch.setattr(receiving, "runnable_threads", lambda: left.pop(0) if len(left) > 1 else left[0])
    return left


def test_a_thread_looks_while_there_is_a_core_for_everybody(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, 2)
    assert all(receiver.may_look() for _ in range(200))


def test_threads_are_counted_once_in_many_looks(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    left = crowd(monkeypatch, *[1] * 10)
    for _ in range(130):
        receiver.may_look()
    assert len(left) == 8


def test_in_a_crowd_a_thread_sleeps_at_once_and_asks_again_soon(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, 3, 3, 2)
    looked = [receiver.may_look() for _ in range(40)]
    assert looked == [False] * (9 + 17) + [True] * 14


def test_a_look_that_finds_nothing_is_not_repeated_at_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(monkeypatch, 1)
    assert not receiver.look()
    assert [receiver.may_look() for _ in range(9)] == [False] * 8 + [True]


def test_after_a_look_that_finds_nothing_threads_are_counted_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = crowd(monkeypatch, 1, 3)
    assert not receiver.look()
    assert not any(receiver.may_look() for _ in range(9))
    assert left == [3]


def test_looks_in_vain_become_rare_and_one_that_finds_something_makes_them_frequent(
    receiver: Receiver, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, 1)

    def times_skipped() -> int:
        times = 0
        while not receiver.may_look():
            times += 1
        return times

    assert not receiver.looks()
    skipped: list[int] = []
    for _ in range(5):
        skipped.append(times_skipped())
        assert not receiver.looks()
    assert skipped == [8, 16, 32, 64, 64]
    times_skipped()
    ends[1].send(b"something")
    assert receiver.looks()
    receiver.counts.clear()
    assert not receiver.looks()
    assert times_skipped() == 8


@pytest.mark.parametrize(
    ("said", "count"), [("1.22 1.18 1.30 3/117 10817\n", 3), ("", 0), ("0.1 0.2", 0), ("0.1 0.2 0.3 many/9 1", 0)]
)
def test_runnable_threads_are_those_that_the_kernel_counts(tmp_path: Path, said: str, count: int) -> None:
    path = tmp_path / "loadavg"
    path.write_text(said)
    assert runnable_threads(str(path)) == count


def test_where_the_kernel_tells_nothing_no_crowd_is_assumed(tmp_path: Path) -> None:
    assert runnable_threads(str(tmp_path / "absent")) == 0


def test_this_machine_tells() -> None:
    assert runnable_threads() >= 1
