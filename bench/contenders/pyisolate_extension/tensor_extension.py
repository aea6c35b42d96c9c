"""What pyisolate's contender is asked for with tensors; imported on both sides."""

from typing import Any

from pyisolate import ExtensionBase


class TensorExtension(ExtensionBase):
    """Computes with torch."""

    async def first(self, tensor: Any) -> float:
        return tensor.reshape(-1)[0].item()

    async def invert(self, image: Any) -> Any:
        return 1.0 - image
