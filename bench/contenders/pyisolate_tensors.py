# /// script
# requires-python = ">=3.10"
# dependencies = ["pyisolate==0.10.2"]
#
# [tool.airlock-bench]
# name = "pyisolate 0.10.2 with torch"
# scenarios = ["images"]
# torch = true
#
# [tool.airlock-bench.contenders]
# "pyisolate" = []
# ///
"""pyisolate with tensors, by its API: an extension whose worker shares the host's torch, and tensors in shared memory.

`python pyisolate_tensors.py images COUNT`. The worker's environment is pyisolate's to make; the first start does.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pyisolate
from tensors import image_figures

_EXTENSION = Path(__file__).parent / "pyisolate_extension"


def main() -> None:
    """Sends tensors to a worker of its own."""
    count = int(sys.argv[2])
    sys.path.append(str(_EXTENSION))
    from tensor_extension import TensorExtension

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    environments = Path(sys.prefix) / "extensions"
    manager = pyisolate.ExtensionManager(TensorExtension, {"venv_root_path": str(environments)})
    config = pyisolate.ExtensionConfig(
        name="tensors",
        module_path=str(_EXTENSION),
        isolated=True,
        dependencies=[],
        apis=[],
        share_torch=True,
        share_cuda_ipc=False,
        sandbox_mode=pyisolate.SandboxMode.DISABLED,
    )

    async def load() -> Any:
        return manager.load_extension(config)

    extension = loop.run_until_complete(load())
    try:
        figures = image_figures(
            lambda image: loop.run_until_complete(extension.invert(image)),
            lambda tensor: loop.run_until_complete(extension.first(tensor)),
            count,
        )
    finally:
        manager.stop_all_extensions()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
