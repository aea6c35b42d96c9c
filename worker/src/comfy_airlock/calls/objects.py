"""What the other side can do with our objects: the methods of PROTOCOL.md, "References"."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any, Final

from comfy_airlock.calls.references import Exported, References
from comfy_airlock.calls.remote import Remote
from comfy_airlock.wire.errors import BadRequest

_TAKE_SECONDS: Final = 0.001
"""How long items are gathered for one answer: what takes longer to make is sent at once."""

_ITEM_BYTES_MAX: Final = 64 * 1024
"""An item as large as this is sent at once, so that an answer is not many times as large as the items of a slow one."""


class Objects:
    """The methods, over one pair's references."""

    def __init__(self, references: References) -> None:
        self._references = references
        self.methods = {
            "ref_call": self.call,
            "ref_get": self.get,
            "ref_method": self.method,
            "ref_take": self.take,
            "ref_close": self.close,
        }

    def call(self, number: int, /, *args: Any, **keywords: Any) -> Any:
        """Calls a function."""
        return self._of_kind(number, "function").value(*args, **keywords)

    def get(self, number: int, name: str, /) -> list[Any]:
        """Whether an attribute is a method, 0 or 1, and otherwise its value."""
        value = self._attribute(number, name)
        return [1, None] if callable(value) and getattr(value, "__self__", None) is not None else [0, value]

    def method(self, number: int, name: str, /, *args: Any, **keywords: Any) -> Any:
        """Calls a method."""
        return self._attribute(number, name)(*args, **keywords)

    def _attribute(self, number: int, name: object) -> Any:
        entry = self._of_kind(number, "object")
        if not entry.is_revealed:
            raise BadRequest(
                f"{type(entry.value).__qualname__} was passed to be held and given back, not to be used",
                hint="the host lets a pack use an object by comfy_airlock.remote(…)",
            )
        if not isinstance(name, str) or name.startswith("_"):
            raise BadRequest(f"{name!r} is no public name")
        return getattr(entry.value, name)

    def take(self, number: int, count: int, /) -> Any:
        """Items of an iterator, and whether it has ended: at least one, and those that are ready, up to ``count``."""
        entry = self._references.exported(number)
        if entry.kind == "async_iterator":
            return self._take_awaited(entry, count)
        self._of_kind(number, "iterator")
        gathered = _Gathered(count, entry)
        try:
            while not gathered.is_enough:
                gathered.add(next(entry.value))
        except StopIteration:
            gathered.has_ended = True
        except Exception as error:  # noqa: BLE001 - whatever a generator raises.
            gathered.failed(error)
        return gathered.answer()

    async def _take_awaited(self, entry: Exported, count: int) -> list[Any]:
        gathered = _Gathered(count, entry)
        try:
            while not gathered.is_enough:
                gathered.add(await entry.value.__anext__())
        except StopAsyncIteration:
            gathered.has_ended = True
        except Exception as error:  # noqa: BLE001 - whatever a generator raises.
            gathered.failed(error)
        return gathered.answer()

    def close(self, number: int, /) -> Awaitable[None] | None:
        """Closes an iterator, where it can be closed."""
        entry = self._references.exported(number)
        if entry.kind not in ("iterator", "async_iterator"):
            raise self._wrong(entry, "closed")
        entry.has_ended = True
        close = getattr(entry.value, "aclose" if entry.kind == "async_iterator" else "close", None)
        return None if close is None else close()  # type: ignore[no-any-return]

    def _of_kind(self, number: int, kind: str) -> Exported:
        entry = self._references.exported(number)
        if entry.kind != kind:
            raise self._wrong(entry, f"used as {kind}")
        return entry

    def _wrong(self, entry: Exported, how: str) -> BadRequest:
        return BadRequest(f"a reference of kind {entry.kind} can't be {how}")


class _Gathered:
    """Items for one answer."""

    def __init__(self, count: int, entry: Exported) -> None:
        if entry.failure is not None:
            raise entry.failure
        self.items: list[Any] = []
        self.has_ended = entry.has_ended
        self._entry = entry
        self._count = max(1, count)
        self._until = time.monotonic() + _TAKE_SECONDS
        self._has_large = False

    def add(self, item: Any) -> None:
        self.items.append(item)
        self._has_large = self._has_large or _is_large(item)

    def failed(self, error: Exception) -> None:
        """The iterator raised. The items before come first: it is raised when more is asked for."""
        if not self.items:
            raise error
        self._entry.failure = error

    def answer(self) -> list[Any]:
        """The items, and whether these were the last."""
        self._entry.has_ended = self.has_ended
        return [self.items, self.has_ended]

    @property
    def is_enough(self) -> bool:
        if self.has_ended or not self.items:
            return self.has_ended
        return self._has_large or len(self.items) >= self._count or time.monotonic() >= self._until


def _is_large(item: Any) -> bool:
    """Whether an item, or what it directly holds, is large."""
    if isinstance(item, (list, tuple)):
        return any(_bytes_of(each) >= _ITEM_BYTES_MAX for each in item)
    if isinstance(item, dict):
        return any(_bytes_of(each) >= _ITEM_BYTES_MAX for each in item.values())
    return _bytes_of(item) >= _ITEM_BYTES_MAX


def _bytes_of(item: Any) -> int:
    if isinstance(item, (bytes, bytearray, str)):
        return len(item)
    # What lives elsewhere is asked nothing.
    size = 0 if isinstance(item, Remote) else getattr(item, "nbytes", 0)
    return size if isinstance(size, int) else 0
