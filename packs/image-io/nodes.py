"""The nodes: LoadImage, SaveImage, PreviewImage, under ComfyUI's names and with its inputs and outputs.

An IMAGE is float32 [batch, height, width, channels] and a MASK float32 [batch, height, width], in 0..1: torch tensors
where torch is installed, numpy arrays elsewhere.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from .codec import encode_png, read_image, workflow_texts
from .folders import INPUT, OUTPUT, TEMP, Folder, Series, find_image, image_names

try:
    import torch
except ImportError:  # The pack does not need torch, so its own environment need not have it.
    torch = None


class LoadImage:
    """A file of the input folder as IMAGE [B, H, W, 3] and MASK [B, H, W]; without alpha, [B, 64, 64] of zeros."""

    DESCRIPTION = "Loads an image, or the frames of one, from the input folder."
    CATEGORY = "image"
    FUNCTION = "load_image"
    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": (image_names(INPUT), {"image_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        """Accept files in subfolders, and in other folders (`a.png [output]`), which the list of choices lacks."""
        try:
            find_image(image)
        except (OSError, RuntimeError, ValueError) as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:
        """Return the SHA-256 of the file, so that a run with an edited file does not take the cached result."""
        with find_image(image).open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def load_image(self, image: str) -> tuple[Any, Any]:
        pictures, mask = read_image(find_image(image))
        return (pictures, mask) if torch is None else (torch.from_numpy(pictures), torch.from_numpy(mask))


class SaveImage:
    """Writes an IMAGE [B, H, W, C] to the output folder, a PNG for each picture: `<prefix>_00001_.png` and on.

    The counter goes on after the files that are there, and none is overwritten. The prefix may name subfolders and
    hold ComfyUI's variables (`%width%`, `%year%`, `%batch_num%` ...). The prompt and the workflow are put into the text
    chunks of each PNG.
    """

    DESCRIPTION = "Saves the images to the output folder as PNG."
    CATEGORY = "image"
    FUNCTION = "save_images"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The images to save."}),
                "filename_prefix": ("STRING", {"default": "ComfyUI", "tooltip": "The start of the files' names."}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self,
        images: Any,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return write_series(OUTPUT, images, filename_prefix, workflow_texts(prompt, extra_pnginfo), compress_level=4)


class PreviewImage:
    """Writes an IMAGE [B, H, W, C] to the temp folder, under a prefix that is new for each node."""

    DESCRIPTION = "Writes the images to the temp folder, to look at."
    CATEGORY = "image"
    FUNCTION = "save_images"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def __init__(self) -> None:
        self.prefix = f"ComfyUI_temp_{secrets.token_hex(4)}"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE", {"tooltip": "The images to look at."})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self, images: Any, prompt: Any = None, extra_pnginfo: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return write_series(TEMP, images, self.prefix, workflow_texts(prompt, extra_pnginfo), compress_level=1)


def write_series(
    folder: Folder, images: Any, prefix: str, texts: Mapping[str, str], compress_level: int
) -> dict[str, Any]:
    """Write each picture of a batch and return ComfyUI's `ui` result, which names the files."""
    pictures = np.asarray(images)
    if pictures.ndim != 4 or pictures.shape[3] not in (1, 3, 4):
        raise ValueError(f"images must be [batch, height, width, 1, 3 or 4 channels], not {list(pictures.shape)}")
    height, width = pictures.shape[1:3]
    series = Series.open(folder, expand_prefix(prefix, width, height))
    written: list[dict[str, str]] = []
    for batch, picture in enumerate(pictures):
        png = encode_png(picture, texts, compress_level)
        filename = series.write(batch, png)
        written.append({"filename": filename, "subfolder": series.subfolder, "type": folder.kind})
    return {"ui": {"images": written}}


def expand_prefix(prefix: str, width: int, height: int) -> str:
    """Return `prefix` with ComfyUI's variables filled in: the size in pixels and the local time."""
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {
        "width": f"{width}",
        "height": f"{height}",
        "year": f"{now.tm_year}",
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


NODE_CLASS_MAPPINGS = {
    "LoadImage": LoadImage,
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "LoadImage": "Load Image",
    "SaveImage": "Save Image",
    "PreviewImage": "Preview Image",
}
