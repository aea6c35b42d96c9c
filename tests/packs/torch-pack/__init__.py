"""Nodes for tests that compute with the host's torch."""

from importlib.metadata import version
from typing import Any

import numpy
import torch


class Invert:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (1.0 - image,)


class Where:
    """Where torch and numpy come from, and how nodes run."""

    RETURN_TYPES = ("*",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def run(self) -> tuple[dict[str, Any]]:
        return (
            {
                "torch": torch.__file__,
                "torch_version": version("torch"),
                "numpy": numpy.__file__,
                "numpy_version": numpy.__version__,
                "inference_mode": torch.is_inference_mode_enabled(),
            },
        )


NODE_CLASS_MAPPINGS = {"Invert": Invert, "Where": Where}
