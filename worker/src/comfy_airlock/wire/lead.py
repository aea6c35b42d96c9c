"""Which thread reads a stream that several wait on: leader and followers.

A thread that waits reads for itself, and hands what is not its own to whoever it belongs to, so a call that has the
stream to itself costs no change of threads. Others that wait meanwhile follow: they sleep until what they wait for was
handed to them, or until the leader is done and it is their turn to lead. Where no thread waits, the keeper reads, a
thread that does nothing else: it takes the lead once nobody has led for a moment, or at once where it is called.

Invariant: at most one thread reads at a time, and as long as something may arrive that somebody depends on, one does or
is about to. Knows nothing of frames or sockets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

_REST_SECONDS: Final = 0.02
"""How long the keeper leaves an unread stream to a thread that may come back to it: calls follow one another."""


class Seat:
    """Where one thread waits for what is handed to it."""

    __slots__ = ("_bell", "taken_care_of")

    def __init__(self) -> None:
        self.taken_care_of = False
        self._bell: SimpleQueue[None] | None = None

    def call_back(self) -> None:
        """There is something for the thread that waits here. From any thread."""
        self.taken_care_of = True
        self.wake()

    def wake(self) -> None:
        """Wakes the thread, if it sleeps, to look again."""
        bell = self._bell
        if bell is not None:
            bell.put(None)

    def hang_bell(self) -> None:
        """To be called before the thread looks for the last time whether it must sleep: what comes after that rings."""
        if self._bell is None:
            self._bell = SimpleQueue()

    def sleep(self, seconds: float | None = None) -> None:
        """Sleeps until :meth:`wake`, or so long; one that came since :meth:`hang_bell` counts."""
        assert self._bell is not None
        try:
            self._bell.get(timeout=seconds)
        except Empty:
            pass


def _seconds_to(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


class Lead:
    """The right to read one stream."""

    def __init__(self, read: Callable[[float | None], None]) -> None:
        """
        Args:
            read: blocks until something has arrived, or for so many seconds, and hands it to whom it belongs to. It
                does not raise for what happens to the stream: that is handed out too. Nothing is read after
                :meth:`end`.
        """
        self._read = read
        self._mutex = threading.Lock()
        self._is_taken = False
        self._has_ended = False
        # In the order in which they came: a dict, because any of them may leave first.
        self._followers: dict[Seat, None] = {}
        self._threads_waited = 0
        # A set of tokens rather than a count: what is added and discarded needs no lock, and a coroutine that nobody
        # ever resumes is dismissed by the garbage collector, which may come while this very thread holds the mutex.
        self._unattended: set[object] = set()
        self._keeper_bell: SimpleQueue[None] = SimpleQueue()
        self._keeper_is_called = False
        self._keeper_sleeps = False

    def wait(self, seat: Seat, until: float | None = None) -> None:
        """Returns once ``seat`` was taken care of; reads meanwhile, or sleeps while another thread does.

        Args:
            until: a time of the monotonic clock, at which it returns in any case.
        """
        self._threads_waited += 1
        while not (seat.taken_care_of or (until is not None and time.monotonic() >= until)):
            if not self._take_or_follow(seat):
                self._follow(seat, until)
                continue
            try:
                if until is None:
                    while not (seat.taken_care_of or self._has_ended):
                        self._read(None)
                else:
                    self._read(_seconds_to(until))
            finally:
                self._give_up()

    def _take_or_follow(self, seat: Seat) -> bool:
        with self._mutex:
            if not self._is_taken and not self._has_ended:
                self._is_taken = True
                return True
            seat.hang_bell()
            self._followers[seat] = None
            return False

    def _follow(self, seat: Seat, until: float | None) -> None:
        try:
            if not seat.taken_care_of:
                seat.sleep(_seconds_to(until))
        finally:
            with self._mutex:
                self._followers.pop(seat, None)
                # Woken to lead, and interrupted or taken care of before it could: the turn goes on to the next.
                self._pass_on()

    def _give_up(self) -> None:
        with self._mutex:
            self._is_taken = False
            self._pass_on()

    def _pass_on(self) -> None:
        """Sees to it that somebody reads, where nobody does and somebody has to. Holds the mutex."""
        if self._is_taken or self._has_ended:
            return
        if self._followers:
            for seat in self._followers:
                if not seat.taken_care_of:
                    seat.wake()
                    return
        if self._unattended or self._keeper_sleeps:
            self._call_keeper()

    def _call_keeper(self) -> None:
        """Holds the mutex."""
        if not self._keeper_is_called:
            self._keeper_is_called = True
            self._keeper_bell.put(None)

    def attend(self, token: object) -> None:
        """Something is awaited that no thread waits for here, such as the answer to a coroutine's call."""
        self._unattended.add(token)
        with self._mutex:
            self._pass_on()

    def dismiss(self, token: object) -> None:
        """What :meth:`attend` announced has arrived, or is awaited no longer. Takes no lock."""
        self._unattended.discard(token)

    def call_keeper(self) -> None:
        """Has the keeper read now, where nobody does: a thread is about to block that would have."""
        with self._mutex:
            if not self._is_taken:
                self._call_keeper()

    def end(self) -> None:
        """Makes :meth:`keep` return. The stream must be readable from now on, so that nobody goes on waiting in it."""
        with self._mutex:
            self._has_ended = True
            self._call_keeper()

    def keep(self) -> None:
        """The keeper's whole life: reads wherever no other thread does, until :meth:`end`."""
        while not self._has_ended:
            if self._take_as_keeper():
                try:
                    self._read_while_alone()
                finally:
                    self._give_up()
            self._rest()

    def _take_as_keeper(self) -> bool:
        with self._mutex:
            if self._is_taken:
                return False
            self._is_taken = True
            return True

    def _read_while_alone(self) -> None:
        threads_waited = self._threads_waited
        while not self._has_ended:
            if self._followers or (not self._unattended and threads_waited != self._threads_waited):
                # A thread waits, or has and may again: it had better read for itself.
                return
            self._read(None)

    def _rest(self) -> None:
        """Until the lead was free for a while and nobody wanted it, or somebody calls."""
        threads_waited = -1
        while True:
            with self._mutex:
                is_quiet = threads_waited == self._threads_waited
                threads_waited = self._threads_waited
                if self._keeper_is_called or (is_quiet and not self._is_taken):
                    self._keeper_is_called = self._keeper_sleeps = False
                    self._silence_bell()
                    return
                # One thread waits for long: it calls when it is done, so nobody has to look every few milliseconds.
                self._keeper_sleeps = is_quiet
            try:
                self._keeper_bell.get(timeout=None if is_quiet else _REST_SECONDS)
            except Empty:
                pass

    def _silence_bell(self) -> None:
        try:
            self._keeper_bell.get_nowait()
        except Empty:
            pass  # It woke the keeper.
