"""Events of an extension for its host: by name, with a payload that JSON knows, handled before the teller goes on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

EVENT_BRIDGE_ID: Final = "_event_bridge"
"""The id by which workers call their host's bridge."""


class EventBridge:
    """The handlers that a host has for one extension's events."""

    def __init__(self) -> None:
        self._handlers: dict[str, Callable[[Any], Any]] = {}

    def register_handler(self, name: str, handler: Callable[[Any], Any]) -> None:
        """Has events of this name handled; the last handler counts, and may be a coroutine function."""
        self._handlers[name] = handler

    async def dispatch(self, name: str, payload: Any) -> None:
        """
        Raises:
            ValueError: nobody handles events of this name.
        """
        handler = self._handlers.get(name)
        if handler is None:
            raise ValueError(f"nobody handles the event {name!r}")
        result = handler(payload)
        if inspect.isawaitable(result):
            await result
