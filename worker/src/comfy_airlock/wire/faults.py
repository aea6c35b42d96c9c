"""Where in a value the part lies that cannot cross, for who reads the error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_DEEP_MAX: Final = 64


def path_to_fault(value: Any, crosses: Callable[[Any], bool]) -> str:
    """The path to the innermost part that does not cross, as ``value['image'][3]``.

    Slow: it tries part after part, and is for a value that has failed already.
    """
    path = "value"
    for _ in range(_DEEP_MAX):
        fault = next(((step, part) for step, part in _parts(value) if not crosses(part)), None)
        if fault is None:
            break
        step, value = fault
        path += step
    return path


def _parts(value: Any) -> list[tuple[str, Any]]:
    if type(value) is dict:
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if type(value) in (list, tuple):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    return []
