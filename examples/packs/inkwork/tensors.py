"""The border between ComfyUI's IMAGE and MASK and this pack's arrays.

IMAGE is float32 [batch, height, width, channels] and MASK float32 [batch, height, width], both in 0..1. They are torch
tensors where torch is installed and numpy arrays elsewhere. The pack computes in numpy and never writes into an input.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import torch
except ImportError:  # The pack does not need torch, so its own environment need not have it.
    torch = None

Floats = NDArray[np.float32]


def image_array(image: Any) -> Floats:
    """Return an IMAGE as float32 [B, H, W, 3]; grey is repeated, alpha is dropped."""
    array = np.asarray(image, dtype=np.float32)
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4):
        raise ValueError(f"an IMAGE has the shape [batch, height, width, 1, 3 or 4 channels], not {list(array.shape)}")
    return np.repeat(array, 3, axis=3) if array.shape[3] == 1 else array[..., :3]


def mask_array(mask: Any, batch: int, height: int, width: int) -> Floats:
    """Return a MASK as float32 [batch, height, width, 1], one mask repeated over the batch."""
    array = np.asarray(mask, dtype=np.float32)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] not in (1, batch) or array.shape[1:] != (height, width):
        raise ValueError(
            f"the mask has the shape {list(array.shape)}, but the image needs [1 or {batch}, {height}, {width}]"
        )
    return np.broadcast_to(array, (batch, height, width))[..., None]


def as_comfy(array: NDArray[Any]) -> Any:
    """Return float values as an IMAGE or MASK: clipped to 0..1, a torch tensor where torch is installed."""
    values = np.ascontiguousarray(np.clip(array, 0.0, 1.0), dtype=np.float32)
    return values if torch is None else torch.from_numpy(values)
