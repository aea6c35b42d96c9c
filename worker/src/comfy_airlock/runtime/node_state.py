"""Whether a node keeps something between calls: what its instance is made of, compared with how it was made.

A look at attributes, not into objects: one that was set, replaced or deleted, and a list, dictionary or set that has
grown or shrunk. What a pack keeps in its modules is nobody's business here; its author knows, and sets no idle time.
"""

from __future__ import annotations

from typing import Any

_Look = dict[str, tuple[int, int]]


def look_at(instance: Any) -> _Look:
    """Which attributes an object has, and how large they are."""
    attributes: dict[str, Any] = getattr(instance, "__dict__", {})
    return {name: (id(value), _size(value)) for name, value in list(attributes.items())}


def _size(value: Any) -> int:
    return len(value) if type(value) in (list, dict, set) else 0


class NodeState:
    """One node's instance, as it was made."""

    __slots__ = ("_fresh", "_instance")

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._fresh = look_at(instance)

    @property
    def is_kept(self) -> bool:
        """Whether it is not as it was made."""
        return look_at(self._instance) != self._fresh
