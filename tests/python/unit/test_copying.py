"""Copies by several threads: every byte, whoever is there to help; what is copied lives until the last has ended."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_airlock.memory import copying, libc
from comfy_airlock.memory.copying import Copier
from processes import until

SECONDS_MAX = 20


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "SHARED_BYTES_MIN", 20_000)
    monkeypatch.setattr(copying, "LONG_BYTES_MIN", 60_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(copying, "runnable_threads", lambda: 1)


class Memory:
    """Bytes at an address, for as long as it lives."""

    def __init__(self, data: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(data, len(data))
        self.address = ctypes.addressof(self._buffer)

    @property
    def data(self) -> bytes:
        return self._buffer.raw


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def copied(copier: Copier, size: int, offset: int = 0) -> bytes:
    source, target = Memory(pattern(size + offset)), Memory(bytes(size + 2 * offset))
    copier.copy(target.address + offset, source.address + offset, size, (source, target))
    return target.data


@given(size=st.integers(0, 100_000), offset=st.integers(0, 70))
@settings(max_examples=60)
def test_every_byte_arrives_and_none_beside_them(size: int, offset: int) -> None:
    expected = bytes(offset) + pattern(size + offset)[offset:] + bytes(offset)
    assert copied(Copier(0.05), size, offset) == expected


def test_threads_end_when_there_is_nothing_to_copy_and_others_are_made() -> None:
    copier = Copier(0.05)
    for _ in range(2):
        assert copied(copier, 40_000) == pattern(40_000)
        until(lambda: copier._threads == 0)


def test_one_thread_copies_where_one_core_or_few_bytes_are_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    copier = Copier()
    assert copied(copier, 19_999) == pattern(19_999)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert copied(copier, 40_000) == pattern(40_000)
    monkeypatch.undo()
    monkeypatch.setattr(copying, "SHARED_BYTES_MIN", 20_000)
    monkeypatch.setattr(copying, "runnable_threads", lambda: (os.cpu_count() or 1) + 1)
    assert copied(copier, 40_000) == pattern(40_000)
    assert copier._threads == 0


def test_who_may_have_no_more_threads_copies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    copier = Copier()
    assert copied(copier, 100_000) == pattern(100_000)
    assert copier._jobs.empty()


def test_many_copy_at_once() -> None:
    copier = Copier(0.05)
    wrong: list[int] = []

    def copy_some(size: int) -> None:
        wrong.extend(size for _ in range(50) if copied(copier, size) != pattern(size))

    threads = [threading.Thread(target=copy_some, args=[30_000 + 7_001 * index]) for index in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


def test_what_is_copied_lives_until_all_threads_are_done_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    copier = Copier(0.05)
    may_go_on, has_begun = threading.Event(), threading.Event()
    copy, asker = libc.copy, threading.get_ident()

    def slow_copy(target: int, source: int, size: int) -> None:
        if threading.get_ident() == asker:
            assert has_begun.wait(SECONDS_MAX)
            raise KeyboardInterrupt
        has_begun.set()
        assert may_go_on.wait(SECONDS_MAX)
        copy(target, source, size)

    monkeypatch.setattr(libc, "copy", slow_copy)
    memory = Memory(bytes(80_000))
    lives = weakref.ref(memory)
    with pytest.raises(KeyboardInterrupt):
        copier.copy(memory.address, memory.address + 40_000, 40_000, memory)
    del memory
    gc.collect()
    assert lives() is not None, "its memory is free, and a thread writes to it"
    may_go_on.set()
    until(lambda: lives() is None)
    until(lambda: copier._threads == 0)


def test_a_forked_child_has_threads_of_its_own() -> None:
    memory = Memory(bytes(80_000))
    copying.copy(memory.address, memory.address + 40_000, 40_000, memory)
    child = os.fork()
    if child == 0:
        try:
            source, target = Memory(pattern(40_000)), Memory(bytes(40_000))
            copying.copy(target.address, source.address, 40_000, None)
            os._exit(0 if target.data == pattern(40_000) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    until(lambda: "airlock-copy" not in {each.name for each in threading.enumerate()})
