"""How much memory there is, and how much all processes of a contender take while something goes on.

A process of its own looks, so that nothing that is measured holds it up.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from harness.processes import descendants_by_role, pss_bytes

_LOOK_SECONDS = 0.02
_MIB = 1 << 20


def available_bytes() -> int:
    """What the machine has to give."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class MemoryWatch:
    """PSS of this process and all that it has started, the watch itself excepted, every 20 ms."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._marks: list[tuple[float, str]] = []

    def __enter__(self) -> MemoryWatch:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said, _ = self._process.communicate()
        for line in said.splitlines():
            at, size = line.split()
            self._samples.append((float(at), int(size)))

    def mark(self, name: str) -> int:
        """Something else begins; returns what is taken now at most: bytes.

        A look of its own closes what was going on, so that nothing is too short to be seen.
        """
        size = self._look()
        self._marks.append((time.monotonic(), name))
        return size

    def _look(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        peak = 0
        for line in iter(self._process.stdout.readline, "\n"):
            at, size = line.split()
            self._samples.append((float(at), int(size)))
            peak = max(peak, int(size))
        return peak

    def series(self) -> list[tuple[float, float, str]]:
        """Seconds since the first look, MiB, and what went on."""
        if not self._samples:
            return []
        began = self._samples[0][0]
        return [
            (
                round(at - began, 3),
                round(size / _MIB, 1),
                next((name for when, name in reversed(self._marks) if when <= at), ""),
            )
            for at, size in self._samples
        ]


def _watch(parent: int) -> None:
    """Looks until its standard input ends; a line there asks for what was seen since the line before."""
    import select

    print("ready", flush=True)
    seen: list[tuple[float, int]] = []

    def look() -> None:
        pids = [pid for each in descendants_by_role(parent).values() for pid in each if pid != os.getpid()]
        seen.append((time.monotonic(), pss_bytes([parent, *pids])))

    while True:
        look()
        if select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
            if not sys.stdin.readline():
                return
            look()
            print("".join(f"{at} {size}\n" for at, size in seen), flush=True)
            seen.clear()


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
