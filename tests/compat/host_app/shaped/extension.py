"""A pack in its own process: V1 nodes by their mappings, V3 nodes by what their extension lists."""

import asyncio
import inspect
import os
import uuid

from pyisolate import ExtensionBase
from pyisolate._internal.remote_handle import RemoteObjectHandle
from pyisolate._internal.serialization_registry import SerializerRegistry


class NodeExtension(ExtensionBase):
    def __init__(self):
        super().__init__()
        self.steps = []
        self.nodes = {}
        self.instances = {}
        self.held = {}

    async def before_module_loaded(self):
        self.steps.append("before")

    async def on_module_loaded(self, module):
        self.steps.append(f"loaded {module.__name__}")
        self.nodes = dict(getattr(module, "NODE_CLASS_MAPPINGS", {}))
        entry = getattr(module, "comfy_entrypoint", None)
        if entry is not None:
            extension = entry()
            await asyncio.sleep(0.2)
            await extension.on_load()
            for cls in await extension.get_node_list():
                self.nodes[cls.define_schema()["node_id"]] = cls
        self.steps.append("ready")

    async def list_nodes(self):
        return {name: f"{name} (isolated)" for name in self.nodes}

    async def get_node_details(self, name):
        cls = self.nodes[name]
        if hasattr(cls, "define_schema"):
            return {"is_v3": True, **cls.define_schema()}
        return {
            "is_v3": False,
            "inputs": cls.INPUT_TYPES(),
            "outputs": list(cls.RETURN_TYPES),
            "function": cls.FUNCTION,
        }

    async def look_around(self):
        return {
            "steps": self.steps,
            "is_child": os.environ.get("PYISOLATE_CHILD"),
            "extension": os.environ.get("PYISOLATE_EXTENSION"),
            "module_path": os.environ.get("PYISOLATE_MODULE_PATH"),
            "cuda_ipc": os.environ.get("PYISOLATE_ENABLE_CUDA_IPC"),
            "given": os.environ.get("SHAPED_GIVEN"),
            "inherited": os.environ.get("SHAPED_INHERITED"),
            "root": os.environ.get("SHAPED_ROOT"),
            "cwd": os.getcwd(),
            "copied": [name for name in vars(__import__("shaped.services").services) if name.startswith("copied_")],
        }

    async def process(self):
        return os.getpid()

    async def execute_node(self, name, **inputs):
        cls = self.nodes[name]
        inputs = {key: self._given_back(value) for key, value in inputs.items()}
        if hasattr(cls, "define_schema"):
            function = cls.execute
        else:
            if name not in self.instances:
                self.instances[name] = cls()
            function = getattr(self.instances[name], cls.FUNCTION)
        if inspect.iscoroutinefunction(function):
            result = await function(**inputs)
        else:
            result = await asyncio.get_running_loop().run_in_executor(None, lambda: function(**inputs))
        return tuple(self._handed_out(each) for each in result)

    def _handed_out(self, value):
        if value is None or isinstance(value, (str, int, float, bool, list, dict)) or hasattr(value, "numpy"):
            return value
        registry = SerializerRegistry.get_instance()
        if type(value).__name__ == "ModelProxy" or registry.is_data_type(type(value).__name__):
            return value
        name = str(uuid.uuid4())
        self.held[name] = value
        return RemoteObjectHandle(name, type(value).__name__)

    def _given_back(self, value):
        return self.held[value.object_id] if isinstance(value, RemoteObjectHandle) else value

    async def call(self, function, *args):
        return await function(*args)

    async def signature_of(self, function):
        return str(list(inspect.signature(function).parameters))

    async def flush_transport_state(self):
        count = len(self.held)
        self.held.clear()
        return count
