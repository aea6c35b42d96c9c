"""Runs the host on whatever `pyisolate` is, and prints what came of it as JSON: one line, the last.

python main.py VENVS PACKS [--without-torch]
"""

import asyncio
import json
import os
import sys

import pyisolate
import torch
from shaped.adapter import Grid, Model, ShapedAdapter
from shaped.extension import NodeExtension
from shaped.prompts import Prompts, execute
from shaped.services import Folders, Models, ProgressBar

os.environ["SHAPED_INHERITED"] = "from the host"


def config(packs, name, **more):
    return {
        "name": name,
        "module_path": os.path.join(packs, name),
        "isolated": True,
        "dependencies": [],
        "apis": ShapedAdapter().provide_rpc_services(),
        "share_torch": True,
        "share_cuda_ipc": False,
        "sandbox_mode": pyisolate.SandboxMode.DISABLED,
        "env": {"SHAPED_GIVEN": "given"},
        **more,
    }


async def discover(extension):
    """The nodes of an extension; what answers with none may not have got there yet."""
    for _ in range(200):
        nodes = await extension.list_nodes()
        if nodes:
            return {name: [shown, await extension.get_node_details(name)] for name, shown in nodes.items()}
        await asyncio.sleep(0.05)
    return {}


def ones(*shape):
    return torch.ones(shape)


def plain(value):
    return [type(value).__name__, list(value.shape), value.tolist()] if hasattr(value, "tolist") else value


def run(venvs, packs):  # noqa: C901 - one scene after the other, on one set of extensions.
    results = {}
    pyisolate.register_adapter(ShapedAdapter())
    manager = pyisolate.ExtensionManager(NodeExtension, {"venv_root_path": venvs})
    v1 = manager.load_extension(config(packs, "v1_nodes"))
    v3 = manager.load_extension(config(packs, "v3_nodes"))
    events = []
    v1.register_event_handler("steps", events.append)
    results["names"] = [v1.name, v1.module_path.endswith("v1_nodes"), sorted(manager.extensions)]

    async def load():
        results["v1"], results["v3"] = await asyncio.gather(discover(v1), discover(v3))
        around = await v1.look_around()
        results["around"] = {**around, "cwd": around["cwd"] == os.getcwd()}
        results["public names"] = [name for name in dir(v1.proxy) if not name.startswith("_")]

    asyncio.run(load())
    prompts = Prompts([manager])
    model = Model("a model", 3.0)

    async def images():
        (inverted,) = await execute(v1, "Invert", image=ones(1, 2, 2, 3) * 0.25)
        (blended,) = await execute(v3, "Blend", a=inverted, b=ones(1, 2, 2, 3), factor=0.5)
        results["images"] = [plain(inverted), plain(blended)]

    async def models():
        latent, returned, title = await execute(v1, "ApplyModel", model=model, latent=ones(2))
        results["models"] = [plain(latent), returned is model, title, sorted(Models().threads)]

    async def data():
        (secret,) = await execute(v1, "MakeSecret", text="hidden")
        (text,) = await execute(v1, "ReadSecret", secret=secret)
        (grid,) = await execute(v1, "Transpose", grid=Grid([[1, 2], [3, 4]]))
        results["data"] = [type(secret).__name__, secret.type_name, text, type(grid).__name__, grid.cells]
        results["counts"] = [(await execute(v1, "Count"))[0] for _ in range(3)]
        results["flushed"] = await v1.flush_transport_state()

    async def services():
        results["service"] = list(await execute(v1, "Ask", kind="loras"))
        await execute(v1, "Steps", steps=3)
        # The loop of the prompt has to turn for what is told to it.
        results["progress"] = await asyncio.to_thread(ProgressBar().wait_for, 3)
        results["events"] = list(events)
        results["asked"] = list(Folders().asked)

    async def callbacks():
        def twice(number, *, offset=0):
            return number * 2 + offset

        async def later(number):
            await asyncio.sleep(0)
            return [number, os.getpid()]

        results["callbacks"] = [await v1.call(twice, 21), (await v1.call(later, 1))[1] == os.getpid()]
        results["signature"] = await v1.signature_of(twice)

    async def failures():
        found = []
        for name in ("Fail", "Nowhere"):
            try:
                await execute(v1, name)
            except Exception as error:
                found.append(str(error))
        for name in ("nowhere", "_private"):
            try:
                getattr(v1, name)
            except AttributeError:
                found.append(f"no {name}")
        results["failures"] = found

    async def both():
        pair = await asyncio.gather(
            execute(v1, "Invert", image=ones(1)), execute(v3, "Blend", a=ones(1), b=ones(1), factor=0.0)
        )
        results["both"] = [plain(each[0]) for each in pair]

    for work in (images, models, data, services, callbacks, failures, both):
        prompts.run(work)

    async def process():
        return await v1.process(), (await execute(v1, "Count"))[0]

    before = prompts.run(process)
    v1.stop()
    results["stopped"] = [os.path.exists(f"/proc/{before[0]}"), "rpc" in vars(manager.extensions["v1_nodes"])]

    async def again():
        await discover(v1)
        return await process()

    after = prompts.run(again)
    results["respawned"] = [after[0] != before[0], before[1], after[1]]
    results["exists"] = pyisolate.flush_tensor_keeper() >= 0, pyisolate.purge_orphan_sender_shm_files() >= 0
    manager.stop_all_extensions()
    results["left"] = [os.path.exists(f"/proc/{after[0]}"), len(manager.extensions)]
    return results


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2]), sort_keys=True))
