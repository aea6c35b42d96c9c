"""An extension that says what it gets."""

import asyncio
import sys

from pyisolate import ExtensionBase


class PlainExtension(ExtensionBase):
    def __init__(self):
        super().__init__()
        self.module = None
        self.nodes = []

    async def on_module_loaded(self, module):
        self.module = module
        if hasattr(module, "comfy_entrypoint_slow"):
            await asyncio.sleep(1)
            self.nodes = await module.comfy_entrypoint_slow()

    async def list_nodes(self):
        return self.nodes

    async def nodes_by_name(self):
        return {name: name for name in self.nodes}

    async def version_of(self, name):
        return sys.modules[name].__version__

    async def kind(self, value):
        return type(value).__name__

    async def kind_of_key(self, value):
        return type(next(iter(value))).__name__

    async def fail(self):
        return {}["nothing"]
