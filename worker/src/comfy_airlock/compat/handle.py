"""What a host holds of an extension that it has loaded: the extension's own methods, and those of its process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_airlock.compat.extension import Extension
from comfy_airlock.compat.extension_base import ExtensionLocal


class ExtensionHandle(ExtensionLocal):
    """An extension. What it has itself comes first: ``stop`` is the host's, and not the method of the extension."""

    def __init__(self, extension: Extension) -> None:
        super().__init__()
        self._extension = extension

    @property
    def proxy(self) -> Any:
        """What calls the extension's methods."""
        proxy = self._extension.get_proxy()
        self._initialize_rpc(self._extension.rpc)
        return proxy

    def __getattr__(self, item: str) -> Any:
        if item == "rpc" or item.startswith("_") or hasattr(self._extension, item):
            return getattr(self._extension, item)
        return getattr(self.proxy, item)

    def register_event_handler(self, name: str, handler: Callable[[Any], Any]) -> None:
        """Has events of the extension's handled, now and after it was started again."""
        self._extension.register_event_handler(name, handler)

    def __repr__(self) -> str:
        return f"<extension {self._extension.name} in {self._extension.module_path}>"
