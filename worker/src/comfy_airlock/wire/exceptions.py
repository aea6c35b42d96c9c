"""Exceptions across processes: they arrive as their own type, with the remote traceback as their cause.

A class that this process has not loaded becomes a dynamic subclass of :class:`RemoteError` and of its nearest loaded
base. Rebuilding imports nothing, and runs no ``__init__`` of a class that was not built into Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from comfy_airlock.wire.errors import RemoteError, RemoteTraceback, ValueInvalid
from comfy_airlock.wire.optional import standard
from comfy_airlock.wire.standard_types import find_class

Pack = Callable[[Any], bytes]

_ENDS: Final = (object, BaseException, Exception)
_ENDINGS: Final = (SystemExit, KeyboardInterrupt, GeneratorExit)
"""End a process or a generator, which is not for the remote side to do; also where a class is an Exception as well."""

_MEMBERS: Final[dict[type[BaseException], tuple[str, ...]]] = {
    ImportError: ("name", "path"),
    AttributeError: ("name",),
    NameError: ("name",),
}
_FIELDS: Final[dict[str, type]] = {"types": list, "message": str, "traceback": str, "args": list, "state": dict}


class Parts(NamedTuple):
    """An exception, taken apart. What it holds is encoded already, each item on its own."""

    types: list[str]
    message: str
    traceback: str
    args: list[bytes]
    state: dict[bytes, bytes]


def take_apart(error: BaseException, pack: Pack) -> Parts:
    """The exception as it crosses: class names, message, traceback, arguments and attributes.

    Args:
        pack: encodes a value, or raises. Asked once for each, as an item may hold exceptions that hold others. An
            argument that it can't encode becomes its ``repr``, such an attribute is left out.
    """
    cls = type(error)
    held = {**vars(error), **{name: getattr(error, name) for name in _members(error)}}
    return Parts(
        types=[_sendable(f"{base.__module__}:{base.__qualname__}") for base in cls.__mro__ if base not in _ENDS],
        message=text_of(error),
        traceback=_sendable("".join(standard("traceback").format_exception(cls, error, error.__traceback__))),
        args=[_packed(item, pack) or pack(_repr(item)) for item in _arguments(error)],
        state=_packed_items(held, pack),
    )


def _packed(item: object, pack: Pack) -> bytes | None:
    try:
        return pack(item)
    except Exception:  # noqa: BLE001 - an item may be anything, and its code may do anything.
        return None


def _packed_items(held: dict[Any, Any], pack: Pack) -> dict[bytes, bytes]:
    both = [(_packed(key, pack), _packed(item, pack)) for key, item in held.items()]
    return {key: item for key, item in both if key is not None and item is not None}


def summary_of(error: BaseException) -> str:
    """The exception in a line, without what it holds: that may hold this exception, or very many."""
    plain = (str, bytes, int, float, bool, type(None))
    shown = [_repr(item) if type(item) in plain else "…" for item in error.args]
    return f"{type(error).__qualname__}({', '.join(shown)})"


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


def rebuild(state: Any) -> Exception:
    """The exception as this process raises it. What is no :class:`Exception` (a SystemExit, a KeyboardInterrupt) comes
    back as a :class:`RemoteError` of that name.

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


def _instance(names: list[str], args: tuple[Any, ...], message: str) -> Exception:
    own = names[0] if names else "builtins:Exception"
    for name in names:
        module, _, qualified_name = name.partition(":")
        cls = find_class(module, qualified_name)
        if cls is None or not issubclass(cls, Exception) or issubclass(cls, _ENDINGS):
            continue
        if name == own:
            return _new(cls, args, message)
        return _new(_stand_in(own, cls, message), args, message)
    return _new(_stand_in(own, Exception, message), args, message)


def _stand_in(name: str, base: type[Exception], message: str) -> type[Exception]:
    """A class of the remote one's name, caught by whoever catches its base or :class:`RemoteError`."""
    module, _, qualified_name = name.partition(":")
    bases = (RemoteError,) if base is Exception else (RemoteError, base)
    # The remote class may have had a __str__ of its own: what it said is all that is known of it.
    namespace = {"__module__": module, "__qualname__": qualified_name, "__str__": lambda _: message}
    try:
        return type(qualified_name.rpartition(".")[2], bases, namespace)
    except (TypeError, ValueError):  # The base's memory layout does not mix with Exception's, or the name is no name.
        return RemoteError


def _new(cls: type[Exception], args: tuple[Any, ...], message: str) -> Exception:
    """An instance made by Python's own code alone, the nearest builtin base's: some keep their fields in __init__."""
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    try:
        error: Exception = builtin.__new__(cls, *args)
    except Exception:  # noqa: BLE001 - arguments that a class does not take.
        return RemoteError(message)
    try:
        builtin.__init__(error, *args)
    except Exception:  # noqa: BLE001 - a subclass may have other arguments than its base.
        error.args = args
    return error
