"""V3-like nodes: listed by a coroutine, with a schema each, run as class methods."""

import asyncio


class Blend:
    @classmethod
    def define_schema(cls):
        return {"node_id": "Blend", "inputs": ["a", "b", "factor"], "outputs": ["IMAGE"]}

    @classmethod
    async def execute(cls, a, b, factor):
        await asyncio.sleep(0)
        return (a * (1.0 - factor) + b * factor,)


class Extension:
    async def on_load(self):
        await asyncio.sleep(0)

    async def get_node_list(self):
        await asyncio.sleep(0)
        return [Blend]


def comfy_entrypoint():
    return Extension()
