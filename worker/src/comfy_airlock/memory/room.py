"""How much memory there is to be had before the system ends somebody for it: MemAvailable, and the limits of cgroups.

Reads files of the kernel's, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

_MARGIN_BYTES: Final = 256 * 1024 * 1024
"""What is left to all else: neither figure counts what others take meanwhile."""

Reader = Callable[[str], str | None]


class Room(NamedTuple):
    """What there is, and who says so."""

    free_bytes: int
    what: str


def read_file(path: str) -> str | None:
    """A file's text; None where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def memory_room(read: Reader = read_file) -> Room | None:
    """The least of what the machine and this process's cgroups have left; None where the kernel tells nothing."""
    rooms = [room for room in (_of_machine(read), *_of_cgroups(read)) if room is not None]
    return min(rooms, default=None)


def total_bytes(read: Reader = read_file) -> int:
    """The machine's memory; 0 where the kernel does not tell."""
    return _meminfo(read, "MemTotal") or 0


def _meminfo(read: Reader, field: str) -> int | None:
    for line in (read("/proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    return None


def _of_machine(read: Reader) -> Room | None:
    available = _meminfo(read, "MemAvailable")
    return None if available is None else Room(max(0, available - _MARGIN_BYTES), "the machine")


def _of_cgroups(read: Reader) -> list[Room | None]:
    rooms: list[Room | None] = []
    for line in (read("/proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            rooms += _upwards(read, "/sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            rooms += _upwards(read, "/sys/fs/cgroup/memory", path, *names)
    return rooms


def _upwards(read: Reader, root: str, path: str, limit: str, usage: str, reclaimable: str) -> list[Room | None]:
    """The room in a cgroup and in those that it lies in."""
    rooms: list[Room | None] = []
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):
        folder = "/".join([root, *parts[:depth]])
        limits, used = read(f"{folder}/{limit}"), read(f"{folder}/{usage}")
        if limits is None or used is None or not limits.strip().isdigit():
            continue
        # What was read from files and not looked at for long goes before anybody is ended.
        cached = _stat(read(f"{folder}/memory.stat"), reclaimable)
        free = int(limits) - int(used) + cached - _MARGIN_BYTES
        rooms.append(Room(max(0, free), f"the cgroup {folder}"))
    return rooms


def _stat(text: str | None, field: str) -> int:
    for line in (text or "").splitlines():
        name, _, value = line.partition(" ")
        if name == field:
            return int(value)
    return 0
