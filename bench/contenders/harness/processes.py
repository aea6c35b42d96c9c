"""What other processes take: CPU time and memory, from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

_INTERPRETERS = re.compile(r"python|pt_main_thread|uv$")


def descendants_by_role(of: int | None = None) -> dict[str, list[int]]:
    """All processes that one (by default this) has started and they, by what they are."""
    children: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name stands in parentheses and may contain any.
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state != "Z":
            children.setdefault(int(parent), []).append((int(folder.name), name))
    roles: dict[str, list[int]] = {}
    left = [of or os.getpid()]
    while left:
        for pid, name in children.get(left.pop(), ()):
            left.append(pid)
            roles.setdefault(_role(pid, name), []).append(pid)
    return roles


def _role(pid: int, name: str) -> str:
    if _INTERPRETERS.match(name):
        return "resource tracker" if _is_resource_tracker(pid) else "worker"
    return "server" if name.startswith("bun") else name


def _is_resource_tracker(pid: int) -> bool:
    """Whether it is the process that multiprocessing starts to clean up after others: no worker of anyone's."""
    try:
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes, of all threads that they have now; of those that are gone, none."""
    total = 0
    for pid in pids:
        # In nanoseconds; the times in stat are in ticks of 10 ms.
        for each in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(each.read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory, with what is shared among n of them counted for an nth in each."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        total += int(found[1]) * 1024 if found else 0
    return total
