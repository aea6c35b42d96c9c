"""After every test: no thread of Airlock's and no descriptor is left that was not there before."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A property that fails does so for good on every machine: hypothesis prints how to reproduce it.
settings.register_profile(
    "airlock", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("airlock")

_SETTLE_SECONDS_MAX = 5.0
_SHARED = re.compile(r"/memfd:airlock-segment|/proc/\d+/pagemap$")
"""Segments, and what tells which of their pages were written to."""


def _threads() -> Counter[str]:
    names = [each.name for each in threading.enumerate()]
    # The thread that sends releases is the process's, as the queue is that finalizers put them into; so are those that
    # copy, which end by themselves when there has been nothing to copy for a second.
    of_process = ("airlock-releases", "airlock-copy")
    return Counter(f"thread {each}" for each in names if each.startswith("airlock-") and each not in of_process)


def _descriptors() -> Counter[str]:
    """Open descriptors by what they lead to; sockets alike, as one may take another's place in a fixture's keeping."""
    listing = Path("/proc/self/fd")
    found: Counter[str] = Counter()
    for entry in listing.iterdir() if listing.is_dir() else ():
        try:
            name = os.readlink(entry)
        except FileNotFoundError:
            continue  # The one that reads this folder.
        # Shared memory stays warm for as long as its connection lasts, which here is longer than a test;
        # tests/python/integration/test_memory.py sees to what is left after that.
        if not _SHARED.match(name):
            found[re.sub(r":\[\d+\]", "", f"descriptor of {name}")] += 1
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = _threads() + _descriptors()
    yield
    deadline = time.monotonic() + _SETTLE_SECONDS_MAX
    while left := (_threads() + _descriptors()) - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {dict(left)}")
        gc.collect()
        time.sleep(0.01)
