"""Runs prompts: each on an event loop of its own, in a worker thread, beside the host's main loop."""

import asyncio
import threading

from pyisolate._internal.model_serialization import deserialize_from_isolation, serialize_for_isolation


class Prompts:
    def __init__(self, managers):
        self._managers = managers

    def run(self, work):
        """Runs a coroutine function as a prompt; returns what it returned, or raises that."""
        outcome = {}

        def run():
            try:
                outcome["value"] = asyncio.run(self._on_its_loop(work))
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=run, name="prompt-worker")
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    async def _on_its_loop(self, work):
        for manager in self._managers:
            for extension in manager.extensions.values():
                if hasattr(extension, "rpc") and extension.rpc is not None:
                    extension.rpc.update_event_loop(asyncio.get_running_loop())
        return await work()


async def execute(extension, name, **inputs):
    """As the class does that stands for a node in the host."""
    result = await extension.execute_node(name, **serialize_for_isolation(inputs))
    return await deserialize_from_isolation(result, extension)
