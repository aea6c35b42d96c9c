"""Functions that cross: called from the other side by a coroutine, with the signature that the function has.

The function itself is a reference of Airlock's, which holds it for as long as the other side has the proxy; what
crosses beside it is what ``inspect.signature`` is to show there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from comfy_airlock.wire.errors import ValueInvalid
from comfy_airlock.wire.registry import register

_OF: Final = "_airlock_callback_of"
"""The attribute by which what was exported tells the function that it calls."""

_UNKNOWN_DEFAULT: Final = "a default of the other process's"
"""Stands for a default value, of which only is told that there is one."""

Call = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Calls a function with arguments as they came; returns its result as it may go, or an awaitable of that."""


class CallableForm:
    """A function of this process, on its way out."""

    __slots__ = ("function", "metadata")

    def __init__(self, function: Any, metadata: dict[str, Any]) -> None:
        self.function = function
        self.metadata = metadata


def outgoing(function: Any, call: Call) -> CallableForm:
    """What crosses in the place of a function."""
    if isinstance(function, CallableProxy):
        return CallableForm(function.remote, function.metadata)

    def target(*args: Any, **keywords: Any) -> Any:
        return call(function, args, keywords)

    setattr(target, _OF, function)
    return CallableForm(target, _metadata_of(function))


def _metadata_of(function: Any) -> dict[str, Any]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []  # Some builtins tell none.
    return {
        "name": str(getattr(function, "__name__", function)),
        "type": type(function).__name__,
        "signature": [[each.name, int(each.kind), each.default is not each.empty] for each in parameters],
    }


class CallableProxy:
    """A function of another process.

    Attributes:
        remote: Airlock's stand-in for it.
        metadata: its name, type and parameters.
    """

    def __init__(self, remote: Any, metadata: dict[str, Any], call: Callable[..., Any]) -> None:
        """
        Args:
            call: calls the stand-in with arguments of this process: a coroutine function.
        """
        self.remote = remote
        self.metadata = metadata
        self._call = call
        self.__name__ = str(metadata.get("name", "remote callable"))
        parameters = [_parameter(*each) for each in metadata.get("signature", ())]
        if parameters:
            self.__signature__ = inspect.Signature(parameters)

    async def __call__(self, *args: Any, **keywords: Any) -> Any:
        return await self._call(self.remote, args, keywords)

    def __repr__(self) -> str:
        return f"<{self.__name__}, a function of another process>"


def _parameter(name: str, kind: int, has_default: bool) -> inspect.Parameter:
    default = _UNKNOWN_DEFAULT if has_default else inspect.Parameter.empty
    return inspect.Parameter(name, inspect._ParameterKind(kind), default=default)  # pyright: ignore[reportPrivateUsage]


def register_callables(call: Callable[..., Any]) -> None:
    """Lets functions cross, and has what arrives called by ``call``, as in :class:`CallableProxy`."""

    def rebuild(state: Any) -> Any:
        if not (isinstance(state, list) and len(state) == 2 and isinstance(state[1], dict)):
            raise ValueInvalid("a function has a reference and what is known of it")
        remote, metadata = state
        own = getattr(remote, _OF, None) if inspect.isfunction(remote) else None
        return CallableProxy(remote, metadata, call) if own is None else own

    register(CallableForm, "pyisolate.Callable", lambda form: [form.function, form.metadata], rebuild)
