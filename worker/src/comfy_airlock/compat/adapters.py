"""The adapter: what a host has of its own to say about isolation, such as paths, serializers and services.

One a process. The worker makes its own of the same class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable


@runtime_checkable
class SerializerRegistryProtocol(Protocol):
    """Where an adapter registers serializers; :class:`comfy_airlock.compat.serializers.SerializerRegistry`."""

    def register(
        self,
        type_name: str,
        serializer: Callable[[Any], Any],
        deserializer: Callable[[Any], Any] | None = None,
        *,
        data_type: bool = False,
    ) -> None: ...

    def get_serializer(self, type_name: str) -> Callable[[Any], Any] | None: ...

    def get_deserializer(self, type_name: str) -> Callable[[Any], Any] | None: ...

    def has_handler(self, type_name: str) -> bool: ...

    def is_data_type(self, type_name: str) -> bool: ...


@runtime_checkable
class IsolationAdapter(Protocol):
    """What an adapter has. Those who don't inherit from it may leave out what they have no use for."""

    @property
    def identifier(self) -> str:
        """What the application is called."""
        ...

    def get_path_config(self, module_path: str) -> dict[str, Any] | None:
        """Where a worker finds the application's modules.

        Returns:
            ``preferred_root``, which comes first; ``filtered_subdirs``, folders in it that are left out of the path;
            and ``additional_paths``, which come last. Each may be missing.
        """
        ...

    def setup_child_environment(self, snapshot: dict[str, Any]) -> None:
        """Called in a worker once its path is set."""

    def register_serializers(self, registry: SerializerRegistryProtocol) -> None:
        """Called in host and worker alike."""

    def setup_web_directory(self, module: Any) -> None:
        """Called in a worker for a module that has files for the browser."""

    def provide_rpc_services(self) -> list[type[Any]]:
        """Classes of services that extensions may call."""
        ...

    def handle_api_registration(self, api: Any, rpc: Any) -> None:
        """Called in a worker for each service, once it can be called."""

    def setup_child_event_hooks(self, extension: Any) -> None:
        """Called in a worker, whose ``extension.emit_event`` can be used by then."""

    def get_sandbox_system_paths(self) -> list[str] | None:
        """Paths that a sandbox shows. Not asked: there is none yet."""
        ...

    def get_sandbox_gpu_patterns(self) -> list[str] | None:
        """Devices that a sandbox shows. Not asked: there is none yet."""
        ...


class AdapterRegistry:
    """The adapter of this process."""

    _instance: ClassVar[Any] = None

    @classmethod
    def register(cls, adapter: Any) -> None:
        """
        Raises:
            RuntimeError: there is another one.
        """
        if cls._instance is not None and cls._instance is not adapter:
            raise RuntimeError(f"an adapter is registered already, {cls._instance!r}: unregister it first")
        cls._instance = adapter

    @classmethod
    def get(cls) -> Any:
        """The adapter, or None."""
        return cls._instance

    @classmethod
    def get_required(cls) -> Any:
        """
        Raises:
            RuntimeError: there is none.
        """
        if cls._instance is None:
            raise RuntimeError("no adapter is registered: the host calls pyisolate.register_adapter() first")
        return cls._instance

    @classmethod
    def unregister(cls) -> None:
        cls._instance = None


def register_adapter(adapter: Any) -> None:
    """Registers this process's adapter."""
    AdapterRegistry.register(adapter)


def get_adapter() -> Any:
    """This process's adapter, or None."""
    return AdapterRegistry.get()
