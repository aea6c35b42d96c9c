"""The receiving half of a stream socket: bytes into an assembler, by whoever leads.

What was received is noted in the same call into C that receives it: a signal's handler, which may raise, runs before or
after that, and what is taken and not counted would be lost.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from itertools import repeat
from time import perf_counter
from typing import Final

from comfy_airlock.wire.crowd import runnable_threads
from comfy_airlock.wire.frame import FrameAssembler
from comfy_airlock.wire.sending import DONTWAIT

_ALL: Final = repeat(0)
_TIMEVAL: Final = struct.Struct("@ll")
"""Seconds and microseconds, as the kernel takes them."""

_LOOK_SECONDS: Final = 0.0001
"""How long a thread looks before it sleeps: about what it takes to wake it."""

_LOOKS_AT_ONCE: Final = 16
"""How often it looks between two glances at the clock; each takes about a microsecond."""

_LOOKS_SKIPPED: Final = 8
"""How often a thread sleeps at once after looks found nothing, or where more threads want to run than can."""

_LOOKS_SKIPPED_MAX: Final = 64
"""The same where that went on: twice as often each time."""

_TIMES_BETWEEN_COUNTS: Final = 64
"""How often it is looked before those threads are counted again, which takes some 10 µs."""


class Receiver:
    """Whoever receives on one socket.

    Attributes:
        assembler: where the bytes go.
        arrivals: blocks for the next bytes at each step, and gives their number; for where no part of a frame is there.
        may_spin: whether the other side can run while a thread looks again and again.
        counts: what was received and not taken from there: one number, 0 at the stream's end, or nothing.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.may_spin = len(os.sched_getaffinity(0)) > 1
        # Those of the machine, as the threads that want to run are.
        self._cores = os.cpu_count() or 1
        self._looks_skipped = 0
        self._looks_to_skip = _LOOKS_SKIPPED
        self._times_until_counted = 0
        self.assembler = FrameAssembler()
        self.counts: list[int] = []
        self.arrivals = map(link.recv_into, repeat(self.assembler.target))

    def receive(self) -> None:
        """Blocks for the next bytes, unless some were found before.

        Raises:
            BlockingIOError: nothing came in as long as :meth:`wait_at_most` has it.
            OSError: the socket broke.
        """
        if not self.counts and not (self.may_spin and self.look()):
            self.counts.extend(map(self._link.recv_into, (self.assembler.target,)))

    def wait_at_most(self, seconds: float) -> None:
        """Has whoever blocks for the next bytes get BlockingIOError where nothing comes for so long, from now on."""
        whole, part = divmod(seconds, 1)
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(whole), int(part * 1e6)))

    def has_something(self, seconds: float) -> bool:
        """Waits so long for something to receive."""
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def glance(self) -> bool:
        """Looks once whether something has come."""
        try:
            self.counts.extend(map(self._link.recv_into, (self.assembler.target,), _ALL, DONTWAIT))
        except BlockingIOError:
            return False
        except OSError:
            pass  # To be found again, and told, by receive.
        return True

    def look(self) -> bool:
        """Looks again and again, for about a tenth of a millisecond, whether something has come, where that pays.

        A thread that sleeps takes several times as long to wake, on a cold core, as the answer to a short call takes to
        come. Where nothing came in time, it is not tried the next times; and not at all where the other side could not
        run meanwhile, or somebody else could who waits for a core.
        """
        return self.may_look() and self.looks()

    def may_look(self) -> bool:
        """Whether it is tried this time. To be asked once each time."""
        if not self.may_spin:
            return False
        if self._looks_skipped:
            self._looks_skipped -= 1
            return False
        if self._times_until_counted:
            self._times_until_counted -= 1
            return True
        if runnable_threads() > self._cores:
            self._skip_looks()
            return False
        self._times_until_counted = _TIMES_BETWEEN_COUNTS
        return True

    def looks(self) -> bool:
        """As :meth:`look`, where it is tried."""
        counts, receive, target = self.counts, self._link.recv_into, (self.assembler.target,)
        until = perf_counter() + _LOOK_SECONDS
        while True:
            for _ in range(_LOOKS_AT_ONCE):
                try:
                    counts.extend(map(receive, target, _ALL, DONTWAIT))
                except OSError:
                    continue
                self._looks_to_skip = _LOOKS_SKIPPED
                return True
            if perf_counter() > until:
                self._skip_looks()
                return False

    def _skip_looks(self) -> None:
        self._looks_skipped = self._looks_to_skip
        self._looks_to_skip = min(2 * self._looks_to_skip, _LOOKS_SKIPPED_MAX)
        # What kept the other side from answering may be those who want a core, too.
        self._times_until_counted = 0
