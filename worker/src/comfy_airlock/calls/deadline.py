"""What a call's time is, and what its caller is told when that is up. Twin of ``src/transport/deadline.ts``."""

from __future__ import annotations

import time
from typing import NamedTuple

from comfy_airlock.wire.errors import DeadlineExceeded
from comfy_airlock.wire.limits import GRACE_SECONDS


class CallTimeout(NamedTuple):
    """The time that every call to a pack has, whatever its caller gives it."""

    seconds: float
    source: str
    """Where it is set."""


class Deadline:
    """When a call's time is up, for a channel on which nobody else looks at that."""

    def __init__(self, seconds: float | None, pack: str | None, limit: CallTimeout | None) -> None:
        """
        Args:
            seconds: what its caller gives it.
            limit: what the pack does; one of the two is there.
        """
        self._limit = limit if limit is not None and (seconds is None or limit.seconds < seconds) else None
        self.seconds = self._limit.seconds if self._limit is not None else seconds or 0.0
        self.until = time.monotonic() + self.seconds
        self._pack = pack

    def seconds_left(self) -> float:
        """Until it is up; never negative."""
        return max(0.0, self.until - time.monotonic())

    def exceeded(self) -> DeadlineExceeded:
        """What the caller is told."""
        whose = "the call" if self._pack is None else f"pack {self._pack}: the call"
        what, more = f"its deadline of {self.seconds * 1000:.0f} ms", "give it more time"
        if self._limit is not None:
            what = f"the pack's limit of {self.seconds * 1000:.0f} ms ({self._limit.source})"
            more = f"raise {self._limit.source}"
        return DeadlineExceeded(
            f"{whose} took longer than {what}",
            pack=self._pack,
            # In the server's words: callers need not know who looked at the clock.
            hint=f"{more}; a worker that goes on for {GRACE_SECONDS:.0f} s more is ended",
        )
