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
from threading import get_ident
from typing import Final, Protocol

from comfy_airlock.wire.errors import BadRequest

_REST_SECONDS: Final = 0.02
"""How long the keeper leaves an unread stream to a thread that may come back to it: calls follow one another."""


Turn = list[int]
"""One time that a thread leads: a list of its own, that holds the thread's number."""


class Waiting(Protocol):
    """Whoever may be told not to wait any more."""

    taken_care_of: bool


class Seat:
    """Where one thread waits for what is handed to it."""

    # Defaults of the class: one is made for each call, and most are never slept in.
    taken_care_of = False
    _bell: SimpleQueue[None] | None = None

    def call_back(self) -> None:
        """There is something for the thread that waits here. From any thread."""
        self.taken_care_of = True
        if self._bell is not None:
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

    def take_bell_down(self) -> None:
        """The thread is awake: nothing is to ring any more."""
        self._bell = None

    def sleep(self, seconds: float | None = None) -> None:
        """Sleeps until :meth:`wake`, or so long; one that came since :meth:`hang_bell` counts."""
        bell = self._bell
        assert bell is not None
        try:
            bell.get(timeout=seconds)
        except Empty:
            pass


def _seconds_to(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


class Stream(Protocol):
    """What is read under one lead: one socket, or several as if they were one."""

    @property
    def lead(self) -> Lead:
        """Who reads it."""
        ...

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to read, and from the end on."""
        ...

    def read_now(self) -> None:
        """Reads what has come, if something has. Called by whoever leads."""

    def nothing_came(self) -> None:
        """Nothing came for as long as the reader of one of its sockets waits. Called by whoever leads."""

    def may_look(self) -> bool:
        """Whether it may pay to :meth:`look` this time."""
        ...

    def look(self) -> None:
        """As :meth:`read_now`, and goes on looking for a moment, as what is waited for mostly comes soon."""


class Lead:
    """The right to read one stream.

    Attributes:
        has_ended: whether nothing is read any more.
        wanted: who wants to hear that the lead was given up: followers, what :meth:`attend` was given, and the lead
            itself for its keeper while that sleeps.
        turns, threads_waited: for who does what :meth:`hold` does in fewer steps, as
            :mod:`comfy_airlock.wire.express`.
    """

    def __init__(
        self,
        read: Callable[[float | None], object],
        is_full: Callable[[], bool] = lambda: False,
        look_around: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Args:
            read: blocks until something has arrived, or for so many seconds, and hands it to whom it belongs to. It
                does not raise for what happens to the stream: that is handed out too. Nothing is read after
                :meth:`end`.
            is_full: whether nothing more should be read by a thread that has no need to.
            look_around: called by the keeper, again and again while it leaves the stream to a thread that comes back
                to it.
        """
        self._read = read
        self._is_full = is_full
        self._look_around = look_around
        # Whose turn it is, and nothing where nobody leads. Taken and noted by one call into C: an interrupt may come
        # between any two. A lock of Python's would take several times as long.
        self.turns: dict[None, Turn] = {}
        self.wanted: set[object] = set()
        self._mutex = threading.Lock()
        self.has_ended = False
        # In the order in which they came: a dict, because any of them may leave first.
        self.followers: dict[Seat, None] = {}
        self.threads_waited = 0
        # A set of tokens rather than a count: what is added and discarded needs no lock, and a coroutine that nobody
        # ever resumes is dismissed by the garbage collector, which may come while this very thread holds the mutex.
        self.unattended: set[object] = set()
        self._keeper_bell: SimpleQueue[None] = SimpleQueue()
        self._keeper_is_called = False

    def will_take(self) -> None:
        """Somebody waits who will take the lead once something is there to be read: the keeper leaves it to them."""
        self.threads_waited += 1

    def hold(self, turn: Turn, read: Callable[[], object]) -> bool:
        """Has this thread lead while it does ``read``, where none leads; False where one does."""
        try:
            if self.turns.setdefault(None, turn) is not turn:
                return False
            try:
                read()
            finally:
                # First, and no call: no signal's handler, which may raise, comes before the lead is free.
                del self.turns[None]
                if self.wanted:
                    self.pass_on()
        except BaseException:
            self.give_up(turn)
            raise
        return True

    def give_up(self, turn: Turn) -> None:
        """Leaves nothing of a turn that was interrupted: as it began, or before those who wait were told of its end."""
        if self.turns.get(None) is turn:
            self.turns.clear()
        self.pass_on()

    def wait(self, seat: Seat, until: float | None = None) -> None:
        """Returns once ``seat`` was taken care of; reads meanwhile, or sleeps while another thread does.

        Args:
            until: a time of the monotonic clock, at which it returns in any case.
        """
        turn, leading = [get_ident()], self.turns.get(None)
        if leading == turn:
            raise BadRequest(
                "a call was made by the thread that reads, such as in a finalizer: nobody would read for it"
            )
        self.threads_waited += 1

        def read() -> None:
            while not (seat.taken_care_of or self.has_ended):
                self._read(None if until is None else _seconds_to(until))
                if until is not None:
                    break

        while not (seat.taken_care_of or (until is not None and time.monotonic() >= until)):
            if not self.hold(turn, read) or self.has_ended:
                self._follow(seat, until)

    def _follow(self, seat: Seat, until: float | None) -> None:
        seat.hang_bell()
        with self._mutex:
            self.followers[seat] = None
            self.wanted.add(seat)
            # Whoever gives up the lead from here on sees this follower; who did before has left it free.
            has_to_sleep = self.has_ended or bool(self.turns)
        try:
            if has_to_sleep and not seat.taken_care_of:
                seat.sleep(_seconds_to(until))
        finally:
            seat.take_bell_down()
            with self._mutex:
                self.followers.pop(seat, None)
                self.wanted.discard(seat)
            # Woken to lead, and interrupted or taken care of before it could: the turn goes on to the next.
            if self.wanted:
                self.pass_on()

    def pass_on(self) -> None:
        """Sees to it that somebody reads, where nobody does and somebody has to."""
        with self._mutex:
            self._pass_on_to_next()

    def _pass_on_to_next(self) -> None:
        """Holds the mutex."""
        if self.has_ended or self.turns:
            return
        if self.followers:
            for seat in self.followers:
                if not seat.taken_care_of:
                    seat.wake()
                    return
        if self.unattended or self in self.wanted:
            self._call_keeper()

    def _call_keeper(self) -> None:
        """Holds the mutex."""
        if not self._keeper_is_called:
            self._keeper_is_called = True
            self._keeper_bell.put(None)

    def attend(self, token: object) -> None:
        """Something is awaited that no thread waits for here, such as the answer to a coroutine's call."""
        self.unattended.add(token)
        self.wanted.add(token)
        self.pass_on()

    def dismiss(self, token: object) -> None:
        """What :meth:`attend` announced has arrived, or is awaited no longer. Takes no lock."""
        self.unattended.discard(token)
        self.wanted.discard(token)

    def call_keeper(self) -> None:
        """Has the keeper read now, where nobody does: a thread is about to block that would have."""
        with self._mutex:
            if not self.turns:
                self._call_keeper()

    def end(self) -> None:
        """Makes :meth:`keep` return. The stream must be readable from now on, so that nobody goes on waiting in it."""
        with self._mutex:
            self.has_ended = True
            self._call_keeper()

    def keep(self) -> None:
        """The keeper's whole life: reads wherever no other thread does, until :meth:`end`."""
        turn = [get_ident()]
        while not self.has_ended:
            if not self._is_full() and self.turns.setdefault(None, turn) is turn:
                try:
                    self._read_while_alone()
                finally:
                    self.turns.clear()
                    self.pass_on()
            self._rest()

    def _read_while_alone(self) -> None:
        threads_waited = self.threads_waited
        while not (self.has_ended or self._is_full()):
            if self.followers or (not self.unattended and threads_waited != self.threads_waited):
                # A thread waits, or has and may again: it had better read for itself.
                return
            self._read(None)

    def _rest(self) -> None:
        """Until the lead was free for a while and nobody wanted it, or somebody calls."""
        threads_waited = -1
        while True:
            self._look_around()
            with self._mutex:
                is_quiet = threads_waited == self.threads_waited
                threads_waited = self.threads_waited
                # One thread waits for long: it calls when it is done, so nobody has to look every few milliseconds.
                # Said before the lead is looked at: whoever gives it up from here on calls.
                if is_quiet:
                    self.wanted.add(self)
                else:
                    self.wanted.discard(self)
                if self._keeper_is_called or (is_quiet and not self.turns):
                    self._keeper_is_called = False
                    self.wanted.discard(self)
                    self._silence_bell()
                    return
            try:
                self._keeper_bell.get(timeout=None if is_quiet else _REST_SECONDS)
            except Empty:
                pass

    def _silence_bell(self) -> None:
        try:
            self._keeper_bell.get_nowait()
        except Empty:
            pass  # It woke the keeper.
