"""A pack that can't be imported."""

NODE_CLASS_MAPPINGS = {"None": 1 / 0}
