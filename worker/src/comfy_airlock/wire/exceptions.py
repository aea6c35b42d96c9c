"""Exceptions across processes: they arrive as their own type, with the remote traceback as their cause.

A class that this process has not loaded becomes a dynamic subclass of :class:`RemoteError` and of its nearest loaded
base. Rebuilding imports nothing, and runs no ``__init__`` of a class that was not built into Python.
"""

from __future__ import annotations

from typing import Any, Final

from comfy_airlock.wire.errors import RemoteError, RemoteTraceback, ValueInvalid
from comfy_airlock.wire.optional import standard
from comfy_airlock.wire.standard_types import find_class

_ENDS: Final = (object, BaseException, Exception)
_MEMBERS: Final[dict[type[BaseException], tuple[str, ...]]] = {
    ImportError: ("name", "path"),
    AttributeError: ("name",),
    NameError: ("name",),
}
_FIELDS: Final[dict[str, type]] = {"types": list, "message": str, "traceback": str, "args": list, "state": dict}


def take_apart(error: BaseException, crosses: Any, traceback: str | None = None) -> dict[str, Any]:
    """The exception as it crosses: class names, message, traceback, arguments and attributes.

    Args:
        crosses: tells whether a value can be encoded; an argument that can't is replaced by its ``repr``.
        traceback: the formatted traceback, made here where it isn't given.
    """
    cls = type(error)
    if traceback is None:
        traceback = "".join(standard("traceback").format_exception(cls, error, error.__traceback__))
    state = {**vars(error), **{name: getattr(error, name) for name in _members(error)}}
    return {
        "types": [f"{base.__module__}:{base.__qualname__}" for base in cls.__mro__ if base not in _ENDS],
        "message": text_of(error),
        "traceback": _sendable(traceback),
        "args": [item if crosses(item) else _repr(item) for item in _arguments(error)],
        "state": {key: item for key, item in state.items() if crosses(key) and crosses(item)},
    }


def text_of(error: BaseException) -> str:
    """``str(error)``, whatever the class's own code makes of that."""
    try:
        return _sendable(str(error))
    except Exception as failure:  # noqa: BLE001 - a pack's __str__ may do anything.
        return f"<{type(error).__qualname__} whose __str__ raised {type(failure).__qualname__}>"


def _repr(value: object) -> str:
    try:
        return _sendable(repr(value))
    except Exception as failure:  # noqa: BLE001 - and so may a __repr__.
        return f"<{type(value).__qualname__} whose __repr__ raised {type(failure).__qualname__}>"


def _sendable(text: str) -> str:
    """The text without lone surrogates, which names of files hold where they are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _arguments(error: BaseException) -> tuple[Any, ...]:
    """What builds the exception again. An OSError leaves its file names out of ``args``."""
    if isinstance(error, OSError):
        arguments: tuple[Any, ...] = OSError.__reduce__(error)[1]  # type: ignore[index]
        return arguments
    return error.args


def _members(error: BaseException) -> tuple[str, ...]:
    """Attributes that are neither in ``args`` nor in ``__dict__``, and that crossing should keep."""
    return next((names for cls, names in _MEMBERS.items() if isinstance(error, cls)), ())


def rebuild(state: Any) -> BaseException:
    """The exception as this process raises it.

    Raises:
        ValueInvalid: the state is no exception's.
    """
    fields = _checked(state)
    names = [name for name in fields["types"] if isinstance(name, str)]
    error = _instance(names, tuple(fields["args"]), fields["message"])
    for key, item in fields["state"].items():
        if key in _members(error):
            BaseException.__setattr__(error, key, item)
        elif key == "__notes__" or (isinstance(key, str) and not key.startswith("__")):
            error.__dict__[key] = item
    if fields["traceback"]:
        error.__cause__ = RemoteTraceback(fields["traceback"])
    return error


def _checked(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict):
        raise ValueInvalid("an exception is described by a map")
    fields: dict[str, Any] = {name: kind() for name, kind in _FIELDS.items()}
    fields.update({name: item for name, item in state.items() if name in _FIELDS and item is not None})
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind):
            raise ValueInvalid(f"an exception's {name} is not a {kind.__name__}")
    return fields


def _instance(names: list[str], args: tuple[Any, ...], message: str) -> BaseException:
    own = names[0] if names else "builtins:Exception"
    for name in names:
        module, _, qualified_name = name.partition(":")
        cls = find_class(module, qualified_name)
        if cls is None or not issubclass(cls, BaseException):
            continue
        if name == own:
            return _new(cls, args, message)
        return _new(_stand_in(own, cls, message), args, message)
    return _new(_stand_in(own, Exception, message), args, message)


def _stand_in(name: str, base: type[BaseException], message: str) -> type[BaseException]:
    """A class of the remote one's name, caught by whoever catches its base or :class:`RemoteError`."""
    module, _, qualified_name = name.partition(":")
    bases = (RemoteError,) if base is Exception else (RemoteError, base)
    # The remote class may have had a __str__ of its own: what it said is all that is known of it.
    namespace = {"__module__": module, "__qualname__": qualified_name, "__str__": lambda _: message}
    try:
        return type(qualified_name.rpartition(".")[2], bases, namespace)
    except (TypeError, ValueError):  # The base's memory layout does not mix with Exception's, or the name is no name.
        return RemoteError


def _new(cls: type[BaseException], args: tuple[Any, ...], message: str) -> BaseException:
    """An instance made by Python's own code alone, the nearest builtin base's: some keep their fields in __init__."""
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    try:
        error: BaseException = builtin.__new__(cls, *args)
    except Exception:  # noqa: BLE001 - arguments that a class does not take.
        return RemoteError(message)
    try:
        builtin.__init__(error, *args)
    except Exception:  # noqa: BLE001 - a subclass may have other arguments than its base.
        error.args = args
    return error
