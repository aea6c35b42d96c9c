"""The class that a host derives its extensions from: what runs in the worker, and what the host may call of it."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any, final

from comfy_airlock.compat.events import EVENT_BRIDGE_ID
from comfy_airlock.compat.rpc import AsyncRPC


class ExtensionLocal:
    """What an extension can do in its own process."""

    _rpc: AsyncRPC

    async def before_module_loaded(self) -> None:
        """Called before the pack is imported."""

    async def on_module_loaded(self, module: ModuleType) -> None:
        """Called once it was; calls from the host wait until this has returned."""

    @final
    def _initialize_rpc(self, rpc: AsyncRPC) -> None:
        self._rpc = rpc

    @final
    def register_callee(self, object_instance: object, object_id: str) -> None:
        """Lets the other side call an object."""
        self._rpc.register_callee(object_instance, object_id)

    @final
    def create_caller(self, object_type: type[Any], object_id: str) -> Any:
        """What calls an object of the other side's."""
        return self._rpc.create_caller(object_type, object_id)

    @final
    def use_remote(self, proxied_singleton: Any) -> None:
        """Has a service's class give what calls the service on the other side."""
        proxied_singleton.use_remote(self._rpc)

    @final
    def emit_event(self, name: str, payload: dict[str, Any]) -> None:
        """Tells the host of an event, and waits until it was handled; on any thread, be it an event loop's.

        Raises:
            TypeError: the payload is nothing that JSON knows.
            ValueError: nobody handles events of this name.
        """
        json.dumps(payload)
        self._rpc.request_blocking((EVENT_BRIDGE_ID, "dispatch"), (name, payload))


class ExtensionBase(ExtensionLocal):
    """The base of extensions."""

    def __init__(self) -> None:
        super().__init__()

    async def stop(self) -> None:
        """Ends the extension's process."""
        await self._rpc.stop()
