"""The extension's type. pyisolate's worker imports it by its name in the host, from the extension's folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyisolate

sys.path.append(str(Path(__file__).parents[1]))
from workload.functions import FUNCTIONS


class HostFunction(pyisolate.ProxiedSingleton):
    """What the host offers: in a worker, its one instance stands for the host's."""

    function: Callable[[Any], Any]

    async def ask(self, value: Any) -> Any:
        """Asks the host's function."""
        return self.function(value)


class WorkloadExtension(pyisolate.ExtensionBase):
    """Coroutines: they run on the worker's event loop, with no thread in between."""

    async def call(self, function: str, values: dict[str, Any]) -> Any:
        """Calls a function of the workload's."""
        return FUNCTIONS[function](**values)

    async def call_back(self, value: Any) -> Any:
        """Asks the host."""
        return await HostFunction().ask(value)
