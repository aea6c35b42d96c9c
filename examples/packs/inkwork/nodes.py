"""The nodes: FlatPaint, InkOutline, MountAndCaption."""

import asyncio
from typing import Any

import numpy as np

from .caption import PAPERS, mount
from .outline import flatten_paint, ink_coverage, saturate
from .tensors import as_comfy, image_array, mask_array

CATEGORY = "inkwork"
INKS = {
    "black": (0.05, 0.05, 0.07),
    "sepia": (0.22, 0.13, 0.08),
    "indigo": (0.09, 0.10, 0.30),
    "white": (1.0, 1.0, 1.0),
}


class FlatPaint:
    """Flat strokes of bold colour (mean shift). IMAGE to IMAGE, shape kept."""

    DESCRIPTION = "Merges near colours into flat strokes and makes them bolder."
    CATEGORY = CATEGORY
    FUNCTION = "paint"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "radius": ("INT", {"default": 8, "min": 1, "max": 32, "tooltip": "Size of a stroke, in pixels."}),
                "colour_range": (
                    "FLOAT",
                    {"default": 0.1, "min": 0.01, "max": 0.5, "step": 0.01, "tooltip": "How near colours must be."},
                ),
                "saturation": ("FLOAT", {"default": 1.2, "min": 0.0, "max": 3.0, "step": 0.05}),
            }
        }

    def paint(self, image: Any, radius: int, colour_range: float, saturation: float) -> tuple[Any]:
        frames = image_array(image)
        return (as_comfy(np.stack([saturate(flatten_paint(one, radius, colour_range), saturation) for one in frames])),)


class InkOutline:
    """Lines of ink along the edges of an image.

    Takes IMAGE [B, H, W, C]; returns IMAGE [B, H, W, 3] and the MASK [B, H, W] of the ink alone.
    """

    DESCRIPTION = "Draws lines of ink along the edges: of the image itself, or of another of the same size."
    CATEGORY = CATEGORY
    FUNCTION = "draw"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "ink")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "detail": (
                    "FLOAT",
                    {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": "More detail, fainter edges."},
                ),
                "thickness": ("INT", {"default": 2, "min": 1, "max": 16, "tooltip": "Width of a line, in pixels."}),
                "ink": (list(INKS), {"default": "black"}),
            },
            "optional": {
                "edges_of": ("IMAGE", {"tooltip": "Take the edges from this image instead."}),
                "mask": ("MASK", {"tooltip": "Where to draw: 1 is full ink, 0 none."}),
            },
        }

    def draw(
        self, image: Any, detail: float, thickness: int, ink: str, edges_of: Any = None, mask: Any = None
    ) -> tuple[Any, Any]:
        frames = image_array(image)
        sources = frames if edges_of is None else image_array(edges_of)
        if sources.shape != frames.shape:
            raise ValueError(
                f"edges_of has the shape {list(sources.shape)}, but it must be the image's, {list(frames.shape)}"
            )
        coverage = np.stack([ink_coverage(source, detail, thickness) for source in sources])[..., None]
        if mask is not None:
            coverage = coverage * mask_array(mask, *frames.shape[:3])
        inked = frames + coverage * (np.asarray(INKS[ink], dtype=np.float32) - frames)
        return as_comfy(inked), as_comfy(coverage[..., 0])


class MountAndCaption:
    """The image on paper with a title and a note below. IMAGE [B, H, W, C] to a larger IMAGE, in 3 channels.

    An async node: the lettering is drawn in a thread, and the worker's event loop stays free.
    """

    DESCRIPTION = "Mounts the image on paper and letters a title and a note below it."
    CATEGORY = CATEGORY
    FUNCTION = "mount"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "title": ("STRING", {"default": "Untitled"}),
                "paper": (list(PAPERS), {"default": "cream"}),
                "margin": ("INT", {"default": 48, "min": 8, "max": 512, "tooltip": "Width of the paper, in pixels."}),
            },
            "optional": {
                "note": ("STRING", {"default": "", "tooltip": "A smaller line below the title."}),
            },
        }

    async def mount(self, image: Any, title: str, paper: str, margin: int, note: str = "") -> tuple[Any]:
        frames = image_array(image)
        mounted = await asyncio.gather(
            *(asyncio.to_thread(mount, frame, title, note, paper, margin) for frame in frames)
        )
        return (as_comfy(np.stack(mounted)),)


NODE_CLASS_MAPPINGS = {
    "FlatPaint": FlatPaint,
    "InkOutline": InkOutline,
    "MountAndCaption": MountAndCaption,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "FlatPaint": "Flat Paint",
    "InkOutline": "Ink Outline",
    "MountAndCaption": "Mount and Caption",
}
