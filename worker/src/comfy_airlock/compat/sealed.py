"""An extension for a worker that has nothing of its host's: V1 nodes, called by name, with what they return handed out
or held.

What a node returns that is no plain value stays in the worker, and crosses as a handle; given back, it is itself again.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from types import ModuleType
from typing import Any

from comfy_airlock.compat.adapters import AdapterRegistry
from comfy_airlock.compat.extension_base import ExtensionBase
from comfy_airlock.compat.remote_handle import RemoteObjectHandle
from comfy_airlock.compat.serializers import SerializerRegistry
from comfy_airlock.wire.arrays import AsTensor, is_array_type
from comfy_airlock.wire.optional import loaded

_PLAIN = (str, int, float, bool, type(None))


class SealedNodeExtension(ExtensionBase):
    """The nodes of a pack's NODE_CLASS_MAPPINGS.

    Attributes:
        node_classes, display_names, node_instances: by the names of nodes.
        remote_objects: what was handed out, by the ids of handles.
    """

    node_classes: dict[str, type[Any]]
    display_names: dict[str, str]
    node_instances: dict[str, Any]
    remote_objects: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.node_classes, self.display_names, self.node_instances, self.remote_objects = {}, {}, {}, {}

    async def on_module_loaded(self, module: ModuleType) -> None:
        self.node_classes = getattr(module, "NODE_CLASS_MAPPINGS", None) or {}
        self.display_names = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
        self.node_instances = {}
        adapter = AdapterRegistry.get()
        if getattr(module, "WEB_DIRECTORY", None) is not None and hasattr(adapter, "setup_web_directory"):
            adapter.setup_web_directory(module)

    async def list_nodes(self) -> dict[str, str]:
        """Display names by node."""
        shown = {each: each for each in self.node_classes}
        return {**shown, **{each: name for each, name in self.display_names.items() if each in shown}}

    async def get_node_details(self, node_name: str) -> dict[str, Any]:
        """What a host needs to make a class that stands for the node."""
        cls = self._node_class(node_name)
        is_list = getattr(cls, "OUTPUT_IS_LIST", None)
        return {
            "input_types": _shown(await self.get_input_types(node_name)),
            "return_types": tuple(str(each) for each in getattr(cls, "RETURN_TYPES", ())),
            "return_names": getattr(cls, "RETURN_NAMES", None),
            "function": str(getattr(cls, "FUNCTION", "execute")),
            "category": str(getattr(cls, "CATEGORY", "")),
            "output_node": bool(getattr(cls, "OUTPUT_NODE", False)),
            "output_is_list": None if is_list is None else tuple(bool(each) for each in is_list),
            "is_v3": False,
        }

    get_node_info = get_node_details

    async def get_input_types(self, node_name: str) -> dict[str, Any]:
        cls: Any = self._node_class(node_name)
        types: dict[str, Any] = cls.INPUT_TYPES() if hasattr(cls, "INPUT_TYPES") else {}
        return types

    async def execute_node(self, node_name: str, **inputs: Any) -> tuple[Any, ...]:
        """Calls a node; its outputs as they may go."""
        cls = self._node_class(node_name)
        if node_name not in self.node_instances:
            self.node_instances[node_name] = cls()
        function = getattr(self.node_instances[node_name], getattr(cls, "FUNCTION", "execute"))
        given = {name: self._given_back(value) for name, value in inputs.items()}
        if getattr(cls, "INPUT_IS_LIST", False):
            given = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
        if inspect.iscoroutinefunction(function):
            result = await function(**given)
        else:
            # The loop takes other calls meanwhile, such as those that the node itself causes.
            result = await asyncio.to_thread(function, **given)
        return tuple(self._handed_out(each) for each in (result if isinstance(result, tuple) else (result,)))

    def _node_class(self, name: str) -> type[Any]:
        if name not in self.node_classes:
            raise KeyError(f"the extension has no node {name!r}")
        return self.node_classes[name]

    def _handed_out(self, value: Any) -> Any:
        if isinstance(value, (*_PLAIN, RemoteObjectHandle)):
            return value
        if isinstance(value, dict):
            return {key: self._handed_out(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self._handed_out(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        registry = SerializerRegistry.get_instance()
        name = type(value).__name__
        if registry.has_handler(name) and registry.is_data_type(name):
            return value
        numpy = loaded("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            # The host may have torch where this process doesn't.
            return AsTensor(value)
        if is_array_type(type(value)):
            return value
        object_id = str(uuid.uuid4())
        self.remote_objects[object_id] = value
        return RemoteObjectHandle(object_id, name)

    def _given_back(self, value: Any) -> Any:
        if isinstance(value, RemoteObjectHandle):
            if value.object_id not in self.remote_objects:
                raise KeyError(f"the object {value.object_id} is not here any more")
            return self.remote_objects[value.object_id]
        if isinstance(value, dict):
            return {key: self._given_back(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self._given_back(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    async def get_remote_object(self, object_id: str) -> Any:
        """The object itself, or what stands for it where it is no value."""
        return self._given_back(RemoteObjectHandle(object_id, ""))

    async def flush_transport_state(self) -> int:
        """Lets go of all objects that handles name; how many that are."""
        count = len(self.remote_objects)
        self.remote_objects.clear()
        return count


def _shown(value: Any) -> Any:
    """A declaration as plain values; what is none is shown as text."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_shown(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return str(value)
