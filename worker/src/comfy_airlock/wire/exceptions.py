"""Exceptions across processes: they arrive as their own type, with the remote traceback as their cause.

A class that this process has not loaded becomes a dynamic subclass of :class:`RemoteError` and of its nearest loaded
base. Rebuilding imports nothing, and runs no ``__init__`` of a class that was not built into Python.
"""

from __future__ import annotations

from typing import Any, Final

from comfy_airlock.wire.errors import RemoteError, RemoteTraceback
from comfy_airlock.wire.optional import standard
from comfy_airlock.wire.standard_types import find_class

_ENDS: Final = (object, BaseException, Exception)


def take_apart(error: BaseException, crosses: Any, traceback: str | None = None) -> dict[str, Any]:
    """The exception as it crosses: class names, message, traceback, arguments and attributes.

    Args:
        crosses: tells whether a value can be encoded; an argument that can't is replaced by its ``repr``.
        traceback: the formatted traceback, made here where it isn't given.
    """
    cls = type(error)
    if traceback is None:
        traceback = "".join(standard("traceback").format_exception(cls, error, error.__traceback__))
    return {
        "types": [f"{base.__module__}:{base.__qualname__}" for base in cls.__mro__ if base not in _ENDS],
        "message": _text(error),
        "traceback": traceback,
        "args": [item if crosses(item) else repr(item) for item in error.args],
        "state": {key: item for key, item in vars(error).items() if isinstance(key, str) and crosses(item)},
    }


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # A pack's __str__ may do anything.
        return f"<{type(error).__qualname__} whose __str__ raised {type(failure).__qualname__}>"


def rebuild(state: dict[str, Any]) -> BaseException:
    """The exception as this process raises it."""
    names = [name for name in state.get("types", []) if isinstance(name, str)]
    args = tuple(state.get("args") or ())
    error = _instance(names, args, str(state.get("message", "")))
    for key, item in (state.get("state") or {}).items():
        if not key.startswith("__") or key == "__notes__":
            error.__dict__[key] = item
    text = state.get("traceback")
    if isinstance(text, str) and text:
        error.__cause__ = RemoteTraceback(text)
    return error


def _instance(names: list[str], args: tuple[Any, ...], message: str) -> BaseException:
    own = names[0] if names else "builtins:Exception"
    for name in names:
        module, _, qualified_name = name.partition(":")
        cls = find_class(module, qualified_name)
        if cls is None or not issubclass(cls, BaseException):
            continue
        if name == own:
            return _new(cls, args, message)
        return _new(_stand_in(own, cls), args, message)
    return _new(_stand_in(own, Exception), args, message)


def _stand_in(name: str, base: type[BaseException]) -> type[BaseException]:
    """A class of the remote one's name, caught by whoever catches its base or :class:`RemoteError`."""
    module, _, qualified_name = name.partition(":")
    bases = (RemoteError,) if base is Exception else (RemoteError, base)
    try:
        return type(qualified_name.rpartition(".")[2], bases, {"__module__": module, "__qualname__": qualified_name})
    except TypeError:  # The base's memory layout does not mix with Exception's.
        return RemoteError


def _new(cls: type[BaseException], args: tuple[Any, ...], message: str) -> BaseException:
    try:
        # Some builtins (UnicodeDecodeError) keep their fields in __init__; theirs is safe to run.
        error = cls(*args) if cls.__module__ == "builtins" else cls.__new__(cls, *args)
    except Exception:
        error = RemoteError(message)
    if not error.args and args:
        error.args = args
    return error
