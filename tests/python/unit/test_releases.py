"""What the thread that sends releases does besides: what is to be done later."""

from __future__ import annotations

import threading
import time
from weakref import WeakMethod

from comfy_airlock.calls.releases import process_releases


class Bell:
    """Says when it was rung."""

    def __init__(self) -> None:
        self.rung: list[float] = []
        self.was_rung = threading.Event()

    def ring(self) -> None:
        self.rung.append(time.monotonic())
        self.was_rung.set()


def test_what_is_to_be_done_later_is_done_once_and_not_before_its_time() -> None:
    process_releases.start()
    late, soon = Bell(), Bell()
    began = time.monotonic()
    process_releases.later(0.3, WeakMethod(late.ring))
    process_releases.later(0.1, WeakMethod(soon.ring))
    assert late.was_rung.wait(5)
    assert [len(late.rung), len(soon.rung)] == [1, 1]
    assert soon.rung[0] - began >= 0.1
    assert late.rung[0] - began >= 0.3


def test_nothing_is_kept_for_what_is_to_be_done_later() -> None:
    process_releases.start()
    gone, there = Bell(), Bell()
    rung = gone.rung
    process_releases.later(0.05, WeakMethod(gone.ring))
    process_releases.later(0.1, WeakMethod(there.ring))
    del gone
    assert there.was_rung.wait(5)
    assert rung == []
