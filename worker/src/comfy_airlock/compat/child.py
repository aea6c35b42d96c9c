"""A worker of a host that speaks pyisolate: imports what the host named, in the order that it relies on, and takes its
calls.

The adapter, then the extension's type; ``before_module_loaded``, the pack, ``on_module_loaded``. A call waits for the
last, and fails with what any of them raised. This is the module that ``comfy_airlock.runtime.entry`` tells of.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any, Final

from comfy_airlock.calls.pair import Pair
from comfy_airlock.calls.service import Method
from comfy_airlock.compat.adapters import AdapterRegistry
from comfy_airlock.compat.host_packages import find_in_host
from comfy_airlock.compat.host_paths import norm, unique
from comfy_airlock.compat.rpc import STOP, AsyncRPC
from comfy_airlock.compat.serializers import SerializerRegistry
from comfy_airlock.compat.this_child import set_child_rpc_instance
from comfy_airlock.runtime.entry import EntryContext

EXTENSION_ID: Final = "extension"
"""The id by which the host calls the extension."""

_SHIM: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")


def enter(context: EntryContext) -> dict[str, Method]:
    """Prepares the worker, and gives what its host calls."""
    settings = json.loads(context.settings)
    context.inference.is_wanted = settings["share_torch"]
    return Child(settings, _HostLink(context)).methods


class _HostLink:
    """The way to the host."""

    def __init__(self, context: EntryContext) -> None:
        self._context = context

    @property
    def _pair(self) -> Pair:
        return self._context.pair()

    async def acall(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return await self._pair.acall(method, args, keywords)

    def call(self, method: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return self._pair.call(method, args, keywords)

    def stop(self) -> None:
        """Has the host end this process."""
        self._pair.call(STOP, (), {})


class Child:
    """The extension in this process."""

    def __init__(self, settings: dict[str, Any], link: _HostLink) -> None:
        self._settings = settings
        self._rpc = AsyncRPC(link)
        self._rpc.until_ready = self._until_loaded
        self._loading: asyncio.Task[None] | None = None

    @property
    def methods(self) -> dict[str, Method]:
        return self._rpc.methods

    async def _until_loaded(self) -> None:
        if self._loading is None:
            # A task of its own: it is not for the first caller to cancel.
            self._loading = asyncio.get_running_loop().create_task(self._load())
        await asyncio.shield(self._loading)
        # Nothing is left to be waited for.
        self._rpc.until_ready = None

    async def _load(self) -> None:
        settings = self._settings
        self._rpc.update_event_loop()
        _prepare(settings)
        adapter = _adapter_of(settings)
        extension_type = _find(settings["extension_type"])
        set_child_rpc_instance(self._rpc)
        extension = extension_type()
        extension._initialize_rpc(self._rpc)  # pyright: ignore[reportPrivateUsage]
        await extension.before_module_loaded()
        self._rpc.register_callee(extension, EXTENSION_ID)
        for reference in settings["apis"]:
            api = _find(reference)
            api.use_remote(self._rpc)
            if adapter is not None and hasattr(adapter, "handle_api_registration"):
                adapter.handle_api_registration(getattr(api, "instance", api), self._rpc)
        if adapter is not None and hasattr(adapter, "setup_child_event_hooks"):
            adapter.setup_child_event_hooks(extension)
        await extension.on_module_loaded(_import_pack(settings["module_path"]))


def _prepare(settings: dict[str, Any]) -> None:
    """Sets this process up as the host's, before anything of the host's or the pack's is imported."""
    snapshot = settings["snapshot"]
    os.environ["PYISOLATE_HOST_SNAPSHOT"] = json.dumps(snapshot)
    if os.path.isdir(settings["cwd"]):
        os.chdir(settings["cwd"])
    root = snapshot.get("preferred_root")
    if settings["is_sealed"]:
        first, last = [each for each in settings["snapshot"]["sealed_host_ro_paths"] if os.path.exists(each)], []
    else:
        root = root or os.path.dirname(os.path.dirname(os.path.abspath(settings["module_path"])))
        left_out = {norm(os.path.join(root, name)) for name in snapshot.get("filtered_subdirs") or ()}
        first = [root, *(each for each in settings["code_paths"] if norm(each) not in left_out)]
        last = snapshot["additional_paths"]
        find_in_host(settings["package_paths"], settings["python"])
    # The pack's own packages come after the host's modules, as those of a program come after its own; and before the
    # host's packages, whatever those are.
    sys.path[:] = unique([_SHIM, *first, *sys.path, *last])


def _adapter_of(settings: dict[str, Any]) -> Any:
    """The host's adapter, made anew in this process."""
    snapshot = settings["snapshot"]
    reference = snapshot.get("adapter_ref")
    if not reference:
        return None
    adapter = _find(reference)()
    AdapterRegistry.register(adapter)
    if not settings["is_sealed"] and hasattr(adapter, "setup_child_environment"):
        adapter.setup_child_environment(snapshot)
    if hasattr(adapter, "register_serializers"):
        adapter.register_serializers(SerializerRegistry.get_instance())
    return adapter


def _find(reference: str) -> Any:
    """What a host names by module and qualified name."""
    module, _, name = reference.partition(":")
    if module == "__main__":
        raise ImportError(
            f"{name} is defined in the host's program, which a worker can't import: move it to a module of its own"
        )
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _import_pack(folder: str) -> ModuleType:
    if not os.path.isdir(folder):
        raise ValueError(f"module_path {folder} is not a folder")
    name = os.path.basename(os.path.abspath(folder)).replace("-", "_").replace(".", "_")
    init = os.path.join(folder, "__init__.py")
    spec = spec_from_file_location(name, init, submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"{init} can't be imported")
    module = module_from_spec(spec)
    # Before it runs, so that it can import its own submodules.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
