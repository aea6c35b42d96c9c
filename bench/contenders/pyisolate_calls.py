# /// script
# requires-python = ">=3.10"
# dependencies = ["pyisolate==0.10.2"]
#
# [tool.airlock-bench]
# name = "pyisolate 0.10.2"
# scenarios = ["calls", "inflight", "hosts", "spawn", "recovery"]
#
# [tool.airlock-bench.contenders]
# "pyisolate, node" = ["node"]
# "pyisolate, method" = ["method"]
# ///
"""pyisolate, by its API and its example of a sealed worker: the kind that needs no torch in the host.

`python pyisolate_calls.py SCENARIO PARAMETERS node|method`: nodes of the workload's pack by pyisolate's own extension
for nodes, which runs each in a thread; or a method of an extension, the least that a call can be there. Calls are
coroutines, and nothing streams. Its sandbox is off, as Airlock has none. A worker's environment is pyisolate's to make,
below this one; the first start does. A worker that died starts again once its extension is stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyisolate
from harness import Contender, run

_HERE = Path(__file__).parent
_ENVIRONMENTS = {"venv_root_path": str(Path(sys.prefix) / "extensions")}
sys.path.append(str(_HERE / "pyisolate_extension"))


class Pyisolate(Contender):
    """Workers of one manager's extensions."""

    is_awaited = True
    share_torch = False

    def __init__(self, how: str = "method") -> None:
        self._is_node = how == "node"
        self._manager: Any = None

    def start(self, workers: int, with_torch: bool) -> None:
        from workload_extension import WorkloadExtension

        extension = pyisolate.SealedNodeExtension if self._is_node else WorkloadExtension
        self._manager = pyisolate.ExtensionManager(extension, _ENVIRONMENTS)
        self._extensions: list[Any] = [self._manager.load_extension(self._config(each)) for each in range(workers)]

    def _apis(self) -> list[type[pyisolate.ProxiedSingleton]]:
        return []

    def _config(self, number: int) -> pyisolate.ExtensionConfig:
        return pyisolate.ExtensionConfig(
            name=f"{'node' if self._is_node else 'method'}-{number}",
            module_path=str(_HERE / ("workload" if self._is_node else "pyisolate_extension")),
            isolated=True,
            dependencies=[],
            apis=self._apis(),
            share_torch=self.share_torch,
            share_cuda_ipc=False,
            execution_model="host-coupled" if self.share_torch else "sealed_worker",
            sandbox_mode=pyisolate.SandboxMode.DISABLED,
        )

    def stop(self) -> None:
        if self._manager is not None:
            self._manager.stop_all_extensions()

    async def acall(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        if self._is_node:
            return (await self._extensions[worker].execute_node(function, **values))[0]
        return await self._extensions[worker].call(function, values)

    async def recover(self) -> None:
        """The next call starts it again."""
        self._extensions[0].stop()


if __name__ == "__main__":
    run(Pyisolate)
