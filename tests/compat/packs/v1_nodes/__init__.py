"""V1 nodes that use what the host offers."""

import os

import shaped.progress
from shaped.adapter import Grid
from shaped.services import Folders


class Invert:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ["IMAGE"]}}

    def invert(self, image):
        return (1.0 - image,)


class ApplyModel:
    RETURN_TYPES = ("LATENT", "MODEL", "STRING")
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ["MODEL"], "latent": ["LATENT"]}}

    def apply(self, model, latent):
        return model.apply(latent, 2.0), model, model.title


class Count:
    """Keeps something between calls."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "count"

    def __init__(self):
        self.calls = 0

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def count(self):
        self.calls += 1
        return (self.calls,)


class Secret:
    def __init__(self, text):
        self.text = text


class MakeSecret:
    RETURN_TYPES = ("SECRET",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ["STRING"]}}

    def make(self, text):
        return (Secret(text),)


class ReadSecret:
    RETURN_TYPES = ("STRING",)
    FUNCTION = "read"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"secret": ["SECRET"]}}

    def read(self, secret):
        return (secret.text,)


class Transpose:
    RETURN_TYPES = ("GRID",)
    FUNCTION = "transpose"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"grid": ["GRID"]}}

    def transpose(self, grid):
        return (Grid([list(row) for row in zip(*grid.cells, strict=True)]),)


class Steps:
    RETURN_TYPES = ("INT",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"steps": ["INT"]}}

    def run(self, steps):
        for step in range(steps):
            shaped.progress.tell(step + 1, steps)
        shaped.progress.emit("steps", {"count": steps, "list": [1, "two", None]})
        return (steps,)


class Ask:
    RETURN_TYPES = ("STRING", "BOOLEAN", "BOOLEAN")
    FUNCTION = "ask"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": ["STRING"]}}

    async def ask(self, kind):
        folders = Folders()
        here = folders.process() == os.getpid()
        return await folders.folder_of(kind), here, await folders.process_of_service() != os.getpid()


class Fail:
    RETURN_TYPES = ()
    FUNCTION = "fail"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def fail(self):
        raise ValueError("the node has failed")


NODE_CLASS_MAPPINGS = {
    each.__name__: each for each in (Invert, ApplyModel, Count, MakeSecret, ReadSecret, Transpose, Steps, Ask, Fail)
}
