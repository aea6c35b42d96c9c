"""The nodes: SamplePhoto, DenoiseTV, SlicSuperpixels, LocalContrast."""

from typing import Any

import numpy as np
from skimage import color, data, exposure, restoration, segmentation, transform, util

from .tensors import as_comfy, image_array, mask_array

CATEGORY = "superpixels"

# The photographs that scikit-image's wheel carries; its other samples would be downloaded on first use.
PHOTOS = ["astronaut", "chelsea", "coffee", "hubble_deep_field", "rocket"]


class SamplePhoto:
    """A photograph out of scikit-image's own wheel: IMAGE [1, H, W, 3]."""

    DESCRIPTION = "Yields a photograph that comes with scikit-image; nothing is downloaded."
    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "photo": (PHOTOS, {"default": "astronaut"}),
                "scale": (
                    "FLOAT",
                    {"default": 1.0, "min": 0.25, "max": 4.0, "step": 0.25, "tooltip": "Times its own size."},
                ),
            }
        }

    def load(self, photo: str, scale: float) -> tuple[Any]:
        if photo not in PHOTOS:
            raise ValueError(f"there is no photo named {photo!r}; choose one of {', '.join(PHOTOS)}")
        pixels = util.img_as_float32(getattr(data, photo)())
        if scale != 1.0:
            pixels = transform.rescale(pixels, scale, order=3, anti_aliasing=scale < 1.0, channel_axis=-1)
        return (as_comfy(pixels[None]),)


class DenoiseTV:
    """Total variation denoising (Chambolle): flattens texture and keeps edges. IMAGE to IMAGE, shape kept."""

    DESCRIPTION = "Flattens texture and keeps edges, by total variation denoising."
    CATEGORY = CATEGORY
    FUNCTION = "denoise"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "weight": (
                    "FLOAT",
                    {"default": 0.1, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": "More weight, less detail."},
                ),
            },
            "optional": {
                "mask": ("MASK", {"tooltip": "Where to denoise: 1 is all, 0 leaves the image as it was."}),
            },
        }

    def denoise(self, image: Any, weight: float, mask: Any = None) -> tuple[Any]:
        frames = image_array(image)
        if weight == 0.0:
            return (as_comfy(frames),)
        smooth = np.stack([restoration.denoise_tv_chambolle(frame, weight=weight, channel_axis=-1) for frame in frames])
        if mask is not None:
            amount = mask_array(mask, *frames.shape[:3])
            smooth = frames + amount * (smooth - frames)
        return (as_comfy(smooth),)


class SlicSuperpixels:
    """SLIC segmentation: each superpixel in its mean colour.

    Takes IMAGE [B, H, W, C]; returns IMAGE [B, H, W, 3] and MASK [B, H, W], which is 1 where two superpixels meet.
    """

    DESCRIPTION = "Cuts the image into superpixels (SLIC) and paints each in its mean colour."
    CATEGORY = CATEGORY
    FUNCTION = "segment"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "borders")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "segments": (
                    "INT",
                    {"default": 600, "min": 2, "max": 20000, "tooltip": "About how many superpixels to make."},
                ),
                "compactness": (
                    "FLOAT",
                    {
                        "default": 12.0,
                        "min": 0.1,
                        "max": 100.0,
                        "step": 0.1,
                        "tooltip": "High: squares. Low: shapes that follow the colours.",
                    },
                ),
                "draw_borders": ("BOOLEAN", {"default": False, "tooltip": "Darken the borders, as in stained glass."}),
            }
        }

    def segment(self, image: Any, segments: int, compactness: float, draw_borders: bool) -> tuple[Any, Any]:
        painted, borders = [], []
        for frame in image_array(image):
            labels = segmentation.slic(
                frame, n_segments=segments, compactness=compactness, sigma=1.0, start_label=1, channel_axis=-1
            )
            border = segmentation.find_boundaries(labels, mode="inner")
            flat = color.label2rgb(labels, frame, kind="avg", bg_label=0)
            painted.append(np.where(border[..., None], 0.35 * flat, flat) if draw_borders else flat)
            borders.append(border)
        return as_comfy(np.stack(painted)), as_comfy(np.stack(borders))


class LocalContrast:
    """Adaptive histogram equalisation (CLAHE) of the brightness alone. IMAGE to IMAGE, shape kept."""

    DESCRIPTION = "Lifts the contrast of each neighbourhood of the image and leaves its hues alone."
    CATEGORY = CATEGORY
    FUNCTION = "equalize"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "clip_limit": (
                    "FLOAT",
                    {"default": 0.01, "min": 0.0, "max": 1.0, "step": 0.005, "tooltip": "More limit, more contrast."},
                ),
            }
        }

    def equalize(self, image: Any, clip_limit: float) -> tuple[Any]:
        frames = image_array(image)
        return (as_comfy(np.stack([exposure.equalize_adapthist(frame, clip_limit=clip_limit) for frame in frames])),)


NODE_CLASS_MAPPINGS = {
    "SamplePhoto": SamplePhoto,
    "DenoiseTV": DenoiseTV,
    "SlicSuperpixels": SlicSuperpixels,
    "LocalContrast": LocalContrast,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "SamplePhoto": "Sample Photo",
    "DenoiseTV": "Denoise (Total Variation)",
    "SlicSuperpixels": "Superpixels (SLIC)",
    "LocalContrast": "Local Contrast",
}
