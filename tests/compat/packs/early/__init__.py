"""A pack whose nodes are there a moment later than it is."""

NODE_CLASS_MAPPINGS = {}


async def comfy_entrypoint_slow():
    return ["Early"]
