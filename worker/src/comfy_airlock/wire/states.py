"""What the state of a named value must look like before anything is built from it.

Invariant: a rebuild that went through :func:`checked` raises ValueInvalid and nothing else, whatever a peer sent. Types
are compared exactly, as the codec makes them: a bool is no int, and text that would do as a number is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_airlock.wire.errors import ValueInvalid
from comfy_airlock.wire.registry import Rebuild

Fits = Callable[[Any], bool]


def checked(name: str, fits: Fits, build: Rebuild) -> Rebuild:
    """``build``, for states that fit. What it raises says that the state stands for no value of the type."""

    def rebuild(state: Any) -> Any:
        if not fits(state):
            raise ValueInvalid(f"what arrived as a {name} has no {name}'s state")
        try:
            return build(state)
        except ValueInvalid:
            raise
        except Exception as error:
            raise ValueInvalid(f"what arrived as a {name} is none: {type(error).__name__}: {error}") from error

    return rebuild


def is_none(state: Any) -> bool:
    return state is None


def is_text(state: Any) -> bool:
    return type(state) is str


def is_int(state: Any) -> bool:
    return type(state) is int


def is_dict(state: Any) -> bool:
    return type(state) is dict


def is_list(state: Any) -> bool:
    return type(state) is list


def is_bytes(state: Any) -> bool:
    return type(state) is bytes


def is_anything(_: Any) -> bool:
    return True


def is_list_of(item: Fits) -> Fits:
    """A list of any length, of such items."""
    return lambda state: is_list(state) and all(map(item, state))


def is_record(*items: Fits) -> Fits:
    """A list of exactly these items."""
    return lambda state: (
        is_list(state) and len(state) == len(items) and all(fits(item) for fits, item in zip(items, state, strict=True))
    )
