"""How the host wants its packs isolated."""

import os

from pyisolate._internal.rpc_protocol import AsyncRPC, ProxiedSingleton
from pyisolate.interfaces import IsolationAdapter, SerializerRegistryProtocol

from shaped.models import Model, ModelProxy, is_child
from shaped.services import Folders, Models, ProgressBar


class Grid:
    """Data of the host's own, which crosses whole."""

    def __init__(self, cells):
        self.cells = cells


class ShapedAdapter(IsolationAdapter):
    @property
    def identifier(self) -> str:
        return "shaped"

    def get_path_config(self, module_path: str):
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return {
            "preferred_root": root,
            "additional_paths": [os.path.join(root, "shaped")],
            "filtered_subdirs": ["shaped"],
        }

    def setup_child_environment(self, snapshot):
        os.environ["SHAPED_ROOT"] = str(snapshot.get("preferred_root"))

    def register_serializers(self, registry: SerializerRegistryProtocol) -> None:
        def model_out(model):
            if is_child():
                return {"__type__": "ModelRef", "model_id": model.model_id}
            return {"__type__": "ModelRef", "model_id": Models().keep(model)}

        def model_in(data):
            return ModelProxy(data["model_id"]) if is_child() else Models().get(data["model_id"])

        registry.register("Model", model_out)
        registry.register("ModelProxy", model_out)
        registry.register("ModelRef", None, model_in)
        registry.register(
            "Grid",
            lambda grid: {"__type__": "Grid", "cells": grid.cells},
            lambda data: Grid(data["cells"]),
            data_type=True,
        )

    def setup_web_directory(self, module):
        pass

    def provide_rpc_services(self):
        return [Folders, ProgressBar, Models]

    def handle_api_registration(self, api: ProxiedSingleton, rpc: AsyncRPC) -> None:
        # Names of a service are copied to a module of functions, where it has any.
        import shaped.services as module

        instance = api() if isinstance(api, type) else api
        for name in dir(instance):
            if not name.startswith("_"):
                setattr(module, f"copied_{name}", getattr(instance, name))
        if getattr(api, "__name__", "") == "ProgressBar":
            import shaped.progress

            shaped.progress.rpc = rpc

    def setup_child_event_hooks(self, extension):
        import shaped.progress

        shaped.progress.emit = extension.emit_event

    def get_sandbox_system_paths(self):
        return None

    def get_sandbox_gpu_patterns(self):
        return None


__all__ = ["Grid", "Model", "ShapedAdapter"]
