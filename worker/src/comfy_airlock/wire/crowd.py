"""Whether others want the cores that a thread could use: asked before it looks instead of sleeping, or wakes one."""

from __future__ import annotations


def runnable_threads(path: str = "/proc/loadavg") -> int:
    """How many threads of the machine run or wait for a core, this one among them; 0 where the kernel does not tell."""
    try:
        with open(path, "rb", buffering=0) as file:
            return int(file.read(128).split()[3].partition(b"/")[0])
    except (OSError, IndexError, ValueError):
        return 0
