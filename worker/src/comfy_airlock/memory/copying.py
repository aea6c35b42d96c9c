"""Copies much memory with several threads: one alone reaches about half of what memory of today can do.

It is C's ``memcpy`` that they run, which writes past the caches where that pays, and no thread of OpenMP's: those spin
for milliseconds after their work, on cores that the other side of a call needs. Measured by `npm run bench -- copies`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import Final

from comfy_airlock.memory import libc
from comfy_airlock.memory.libc import PAGE_BYTES
from comfy_airlock.wire.crowd import runnable_threads

_MiB: Final = 1024 * 1024

SHARED_BYTES_MIN: Final = 12 * _MiB
"""Bytes of a copy for which it pays to wake a thread."""

LONG_BYTES_MIN: Final = 64 * _MiB
"""Bytes of a copy from which on it takes so long that whoever else wants a core shares them, as all threads do."""

THREADS_MAX: Final = 4
"""More get no more of the memory's bandwidth, which others may need."""

IDLE_SECONDS: Final = 1.0
"""How long a thread waits for the next copy before it ends."""


class _Job:
    """One copy, in parts that whoever is free takes."""

    def __init__(self, target: int, source: int, size: int, step: int, keeps: object) -> None:
        places = range(0, size, step)
        self._count = len(places)
        self._parts = deque((target + at, source + at, min(step, size - at)) for at in places)
        self._done: SimpleQueue[None] = SimpleQueue()
        # By whoever copies a part, too: who asked for it may be interrupted, and gone.
        self._keeps = keeps

    def help(self) -> None:
        """Copies what nobody has begun."""
        while True:
            try:
                part = self._parts.popleft()
            except IndexError:
                return
            libc.copy(*part)
            self._done.put(None)

    def finish(self) -> None:
        """Waits until all is copied. To be called when nothing is left to begin."""
        for _ in range(self._count):
            self._done.get()
        self._keeps = None

    def abandon(self) -> None:
        """Nobody needs what is left."""
        self._parts.clear()


class Copier:
    """Threads that copy for all others, made as they are needed. Safe to be used from any thread."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._mutex = threading.Lock()
        self._threads = 0

    def copy(self, target: int, source: int, size: int, keeps: object) -> None:
        """Copies ``size`` bytes from one address to another.

        Args:
            keeps: both lie where they do as long as this lives.
        """
        threads = 1 if size < SHARED_BYTES_MIN else _threads_for(size)
        if threads == 1:
            libc.copy(target, source, size)
            return
        # One part for each, in whole pages: after each part a thread waits for the interpreter, which may be long where
        # another computes.
        step = -(-size // threads // PAGE_BYTES) * PAGE_BYTES
        job = _Job(target, source, size, step, keeps)
        try:
            for _ in range(self._helpers(threads - 1)):
                self._jobs.put(job)
            job.help()
            job.finish()
        except BaseException:
            job.abandon()
            raise

    def _helpers(self, wanted: int) -> int:
        """Has so many threads there to help, or as many as there can be; returns how many."""
        there = self._threads
        while there < wanted:
            try:
                threading.Thread(target=self._work, name="airlock-copy", daemon=True).start()
            except RuntimeError:
                break  # The process may have no more threads, or ends.
            there += 1
        return min(there, wanted)

    def _work(self) -> None:
        # Counted by themselves: who starts one may be interrupted.
        with self._mutex:
            self._threads += 1
        try:
            while True:
                self._jobs.get(timeout=self._idle_seconds).help()
        except Empty:
            pass  # What is put from here on, whoever put it copies itself.
        finally:
            with self._mutex:
                self._threads -= 1


def _threads_for(size: int) -> int:
    cores = len(os.sched_getaffinity(0))
    if size < LONG_BYTES_MIN:
        # Others' threads may spin for as long as it takes; this one is among those that run.
        cores = min(cores, (os.cpu_count() or 1) - runnable_threads() + 1)
    return max(1, min(THREADS_MAX, cores))


_copier = Copier()


def copy(target: int, source: int, size: int, keeps: object) -> None:
    """As :meth:`Copier.copy`, with this process's threads."""
    _copier.copy(target, source, size, keeps)


def _forked() -> None:
    global _copier
    _copier = Copier()


# The threads are the parent's, and so may be who holds a lock.
os.register_at_fork(after_in_child=_forked)
