"""The manager: loads extensions of one type, and stops them."""

from __future__ import annotations

import logging
from typing import Any, Generic, TypeVar, cast

from comfy_airlock.compat.extension import Extension
from comfy_airlock.compat.extension_base import ExtensionBase
from comfy_airlock.compat.handle import ExtensionHandle

T = TypeVar("T", bound=ExtensionBase)


class ExtensionManager(Generic[T]):
    """The extensions of a host, by name.

    Attributes:
        extensions: those that are loaded.
    """

    def __init__(self, extension_type: type[T], config: Any) -> None:
        """
        Args:
            extension_type: the class of the extensions; a worker imports it by its module and name.
            config: see :class:`comfy_airlock.compat.config.ExtensionManagerConfig`.
        """
        self.config = config
        self.extension_type = extension_type
        self.extensions: dict[str, Extension] = {}

    def load_extension(self, config: Any) -> T:
        """An extension; its process is started when it is first used.

        Raises:
            ValueError: there is one of this name, or its config asks for what there is not.
        """
        name = config["name"]
        if name in self.extensions:
            raise ValueError(f"the extension {name!r} is loaded already")
        extension = Extension(config["module_path"], self.extension_type, config, self.config.get("venv_root_path", ""))
        self.extensions[name] = extension
        return cast("T", ExtensionHandle(extension))

    def stop_all_extensions(self) -> None:
        """Stops all extensions, and forgets them."""
        for name, extension in self.extensions.items():
            try:
                extension.stop()
            except Exception:
                logging.getLogger(__name__).exception("the extension %s could not be stopped", name)
        self.extensions.clear()
