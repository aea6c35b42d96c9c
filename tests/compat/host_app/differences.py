"""Where pyisolate and Airlock differ, as far as one program can see; prints what it saw as JSON.

python differences.py VENVS PACKS
"""

import asyncio
import json
import os
import sys

import pyisolate
from shaped.plain import PlainExtension


async def outcome(work):
    """What a call gives, or the name of what it raises."""
    try:
        return await work
    except Exception as error:
        return type(error).__name__


async def run(venvs, packs):
    manager = pyisolate.ExtensionManager(PlainExtension, {"venv_root_path": venvs})

    def load(name, **more):
        return manager.load_extension(
            {
                "name": name,
                "module_path": os.path.join(packs, name),
                "isolated": True,
                "dependencies": [],
                "apis": [],
                "share_torch": True,
                "share_cuda_ipc": False,
                "sandbox_mode": pyisolate.SandboxMode.DISABLED,
                **more,
            }
        )

    pinned = load("pinned", dependencies=["six==1.16.0"])
    results = {"a pack's own pin": await outcome(pinned.version_of("six"))}
    results["a tuple"] = await outcome(pinned.kind((1, 2)))
    results["a set"] = await outcome(asyncio.wait_for(pinned.kind({1, 2}), 20))
    results["keys that are numbers"] = await outcome(pinned.kind_of_key({1: 2}))
    try:
        await pinned.fail()
    except Exception as error:
        results["the type of an exception"] = type(error).__name__
        results["the remote traceback"] = "in fail" in str(error.__cause__)
    early = load("early")
    results["an early call"] = await outcome(early.list_nodes())
    broken = await outcome(load("broken").nodes_by_name())
    results["a pack that fails to import"] = broken if isinstance(broken, str) else type(broken).__name__
    cuda = load("v1_nodes", share_cuda_ipc=True)
    try:
        results["CUDA IPC without CUDA"] = "ok" if await cuda.list_nodes() == [] else "nodes"
    except Exception as error:
        results["CUDA IPC without CUDA"] = type(error).__name__
    manager.stop_all_extensions()
    return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], sys.argv[2]))))
