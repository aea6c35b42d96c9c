"""Other processes, and waiting for what they do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

SECONDS_MAX = 20


def until(condition: Callable[[], object]) -> None:
    """Waits for what another process or thread is about to do; fails where it doesn't."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process. One that has ended and was not reaped yet does not run."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        # Its name stands in parentheses and may hold anything; its state follows.
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
