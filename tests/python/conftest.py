"""After every test: no thread of Airlock's and no descriptor is left that was not there before."""

from __future__ import annotations

import gc
import os
import threading
import time
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


def _threads() -> set[str]:
    return {f"thread {each.name} ({each.ident})" for each in threading.enumerate() if each.name.startswith("airlock-")}


def _descriptors() -> set[str]:
    listing = Path("/proc/self/fd")
    if not listing.is_dir():
        return set()
    found: set[str] = set()
    for entry in listing.iterdir():
        try:
            found.add(f"descriptor {entry.name} ({os.readlink(entry)})")
        except FileNotFoundError:
            continue  # The one that reads this folder.
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = _threads() | _descriptors()
    yield
    deadline = time.monotonic() + _SETTLE_SECONDS_MAX
    while left := (_threads() | _descriptors()) - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {', '.join(sorted(left))}")
        gc.collect()
        time.sleep(0.01)
