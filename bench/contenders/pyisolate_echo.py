# /// script
# requires-python = ">=3.10"
# dependencies = ["pyisolate==0.10.2"]
#
# [tool.airlock-bench]
# name = "pyisolate 0.10.2"
# scenarios = ["calls", "inflight"]
#
# [tool.airlock-bench.contenders]
# "pyisolate, node" = ["node"]
# "pyisolate, method" = ["method"]
# ///
"""pyisolate, by its API and its example of a sealed worker: the kind that needs no torch in the host.

`python pyisolate_echo.py calls|inflight COUNT node|method`: a node of the probe pack by pyisolate's own extension for
nodes, which runs it in a thread; or a method of an extension, which is the least that a call can be there. Its sandbox
is off, as Airlock has none. The worker's environment is pyisolate's to make, below this one; the first start does.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyisolate
from latency import latency_awaited
from throughput import throughput_of_tasks

_HERE = Path(__file__).parent
_PROBE = _HERE.parents[1] / "tests" / "packs" / "probe"
_EXTENSION = _HERE / "pyisolate_extension"


async def main() -> None:
    """Echoes values through a worker of its own."""
    scenario, count, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    manager, call = _load_node() if kind == "node" else _load_method()
    try:
        print(json.dumps(await (throughput_of_tasks if scenario == "inflight" else latency_awaited)(call, count)))
    finally:
        manager.stop_all_extensions()


def _load_node() -> tuple[pyisolate.ExtensionManager, Callable[[Any], Awaitable[Any]]]:
    manager, extension = _load(pyisolate.SealedNodeExtension, _PROBE)

    async def call(value: Any) -> Any:
        return (await extension.execute_node("Echo", value=value))[0]

    return manager, call


def _load_method() -> tuple[pyisolate.ExtensionManager, Callable[[Any], Awaitable[Any]]]:
    sys.path.append(str(_EXTENSION))
    from echo_extension import EchoExtension

    manager, extension = _load(EchoExtension, _EXTENSION)
    return manager, extension.echo


def _load(extension_type: type[pyisolate.ExtensionBase], folder: Path) -> tuple[pyisolate.ExtensionManager, Any]:
    environments = Path(sys.prefix) / "extensions"
    manager = pyisolate.ExtensionManager(extension_type, {"venv_root_path": str(environments)})
    config = pyisolate.ExtensionConfig(
        name=folder.name,
        module_path=str(folder),
        isolated=True,
        dependencies=[],
        apis=[],
        share_torch=False,
        share_cuda_ipc=False,
        execution_model="sealed_worker",
        sandbox_mode=pyisolate.SandboxMode.DISABLED,
    )
    return manager, manager.load_extension(config)


if __name__ == "__main__":
    asyncio.run(main())
