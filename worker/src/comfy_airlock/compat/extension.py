"""One extension as its host has it: a pack that is opened when it is first used, and again after it was stopped."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from comfy_airlock.calls.pair import Pair
from comfy_airlock.compat.adapters import AdapterRegistry
from comfy_airlock.compat.events import EVENT_BRIDGE_ID, EventBridge
from comfy_airlock.compat.manifest import Checked, check
from comfy_airlock.compat.rpc import AsyncRPC
from comfy_airlock.compat.serializers import SerializerRegistry
from comfy_airlock.compat.session import open_pack
from comfy_airlock.compat.snapshot import settings_for
from comfy_airlock.wire.errors import AirlockError, WorkerDied

if TYPE_CHECKING:
    from comfy_airlock.host.client import Pack

_ENTRY: Final = "comfy_airlock.compat.child"
_EXTENSION_ID: Final = "extension"

_logger = logging.getLogger("comfy_airlock")


class ExtensionDied(WorkerDied, ConnectionError):
    """The extension's process ended while a call was under way. The next call starts a fresh one."""


class _PackLink:
    """The way to the worker; opens the pack for the first call."""

    def __init__(self, open_it: Callable[[], Pack], methods: Callable[[], dict[str, Callable[..., Any]]]) -> None:
        self._open = open_it
        self._methods = methods
        self._mutex = threading.Lock()
        self._pack: Pack | None = None
        self._is_stopped = False

    def opened(self) -> Pair:
        """The pair with the worker. Blocks for a moment, the first time."""
        with self._mutex:
            if self._is_stopped:
                raise ConnectionError("the extension was stopped")
            if self._pack is None:
                self._pack = self._open()
                self._pair.service.offer(self._methods())
                for warning in self._pack.warnings:
                    _logger.warning("extension %s: %s", self._pack.name, warning)
            return self._pair

    @property
    def _pair(self) -> Pair:
        assert self._pack is not None and isinstance(self._pack.workers, Pair), "an extension has one worker"
        return self._pack.workers

    async def acall(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        pair = self._pair if self._pack is not None else await asyncio.to_thread(self.opened)
        try:
            return await pair.acall(method, args, keywords)
        except AirlockError as error:
            raise self._told(error) from None

    def call(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        try:
            return self.opened().call(method, args, keywords)
        except AirlockError as error:
            raise self._told(error) from None

    def _told(self, error: AirlockError) -> Exception:
        """As callers are told: a stop that overtook their call is one, however far it had got by then."""
        if isinstance(error, WorkerDied):
            return _died(error)
        return ConnectionError(f"the extension was stopped: {error.message}") if self._is_stopped else error

    def stop(self) -> None:
        with self._mutex:
            self._is_stopped = True
            pack, self._pack = self._pack, None
        if pack is not None:
            try:
                pack.close()
            except AirlockError:
                _logger.debug("the pack was closed already", exc_info=True)


def _died(died: WorkerDied) -> ExtensionDied:
    return ExtensionDied(died.message, hint=died.hint, pack=died.pack, exit=died.exit, log=died.log, stack=died.stack)


class Extension:
    """An extension.

    Attributes:
        name, module_path, config, extension_type: as it was loaded.
        rpc: the calls between it and this process; there is none before it is started, and after it was stopped.
    """

    rpc: AsyncRPC

    def __init__(self, module_path: str, extension_type: type[Any], config: Any, venv_root_path: str = "") -> None:
        """
        Raises:
            ValueError: the config asks for what there is not.
        """
        self.config = config
        self._checked: Checked = check({**config, "module_path": module_path})
        self.name = self._checked.name
        self.module_path = module_path
        self.extension_type = extension_type
        self.venv_root_path = venv_root_path
        self.extension_proxy: Any = None
        self._mutex = threading.RLock()
        self._link: _PackLink | None = None
        self._handlers: dict[str, Callable[[Any], Any]] = {}
        self._event_bridge = EventBridge()
        for note in self._checked.notes:
            _logger.warning("%s", note)

    @property
    def _process_initialized(self) -> bool:
        return self._link is not None

    def ensure_process_started(self) -> None:
        """Opens the extension's pack, which checks what it asks for; its process is started by the first call."""
        self._start().opened()

    def _start(self) -> _PackLink:
        """What there is to be before the first call. Asks the server nothing yet."""
        with self._mutex:
            if self._link is not None:
                return self._link
            adapter = AdapterRegistry.get()
            if adapter is not None and hasattr(adapter, "register_serializers"):
                adapter.register_serializers(SerializerRegistry.get_instance())
            services = self._services(adapter)
            link = _PackLink(lambda: self._open(services), lambda: self.rpc.methods)
            self.rpc = AsyncRPC(link)
            for service in services:
                service()._register(self.rpc)
            self.rpc.register_callee(self._event_bridge, EVENT_BRIDGE_ID)
            self._link = link
            return link

    def _services(self, adapter: Any) -> list[type[Any]]:
        """Classes of what the extension may call."""
        if "apis" in self.config and not self._checked.is_sealed:
            return list(self.config["apis"])
        return list(adapter.provide_rpc_services()) if adapter is not None else []

    def _open(self, services: list[type[Any]]) -> Pack:
        settings = settings_for(self._checked, self.extension_type, services)
        return open_pack(self.module_path, self._checked.manifest, {"module": _ENTRY, "settings": settings})

    def get_proxy(self) -> Any:
        """What calls the extension's methods."""
        with self._mutex:
            self._start()
            if self.extension_proxy is None:
                self.extension_proxy = self.rpc.create_caller(self.extension_type, _EXTENSION_ID)
            return self.extension_proxy

    def register_event_handler(self, name: str, handler: Callable[[Any], Any]) -> None:
        """Has events of the extension's handled; also those of the processes that it has later."""
        self._event_bridge.register_handler(name, handler)

    def stop(self) -> None:
        """Ends the process, and returns when it has ended. The next use starts a fresh one."""
        with self._mutex:
            link, self._link = self._link, None
            self.extension_proxy = None
            rpc = self.__dict__.pop("rpc", None)
        if link is not None:
            link.stop()
        if rpc is not None:
            rpc.ended()

    def join(self) -> None:
        """Nothing is to be waited for: a process that was stopped has ended."""
