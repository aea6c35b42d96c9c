"""Files of pixels to arrays and back, by Pillow.

Owns: what a file's frames, orientation, depth and transparency mean as IMAGE and MASK. Knows no folders and no nodes.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

Floats = NDArray[np.float32]

FRAME_PIXELS_MAX = 89_478_485  # Pillow's own bound, where it starts to warn of decompression bombs: 1 GiB as IMAGE.
BATCH_PIXELS_MAX = 4 * FRAME_PIXELS_MAX  # Small frames add up: an animation of a few KB can hold thousands.
BLANK_MASK_SIDE = 64  # ComfyUI's mask for an image without transparency is 64x64 zeros, whatever the image's size.
SINGLE_FRAME_FORMATS = frozenset({"MPO"})  # Cameras put previews and depth maps into the other frames.


def read_image(path: Path) -> tuple[Floats, Floats]:
    """Return a file's frames as IMAGE [B, H, W, 3] and MASK [B, h, w], float32 in 0..1.

    The EXIF orientation is applied. Frames of another size than the first are left out. The mask is 1 - alpha; with no
    transparency in any frame it is zeros of 64x64. Raises ValueError for what is no image, is damaged, or is too large.
    """
    try:
        # Opened here, since Pillow would leave a file that it refuses open.
        with path.open("rb") as stream, Image.open(stream) as file:
            return _read_frames(file, path.name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path.name} is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path.name} is not an image that can be read") from error
    except (OSError, SyntaxError, EOFError) as error:  # Pillow reports damaged PNGs as SyntaxError.
        raise ValueError(f"{path.name} cannot be read as an image: {error}") from error


def _read_frames(file: Image.Image, name: str) -> tuple[Floats, Floats]:
    pictures: list[Floats] = []
    alphas: list[Floats | None] = []
    pixels = 0
    for frame in ImageSequence.Iterator(file):
        size = frame.width * frame.height
        pixels += size
        if size > FRAME_PIXELS_MAX:
            raise ValueError(f"{name} is too large: {frame.width}x{frame.height}, over {FRAME_PIXELS_MAX} pixels")
        if pixels > BATCH_PIXELS_MAX:
            raise ValueError(f"{name} is too large: its frames have over {BATCH_PIXELS_MAX} pixels together")
        upright = ImageOps.exif_transpose(frame)
        picture = _colours(upright)
        if not pictures or picture.shape == pictures[0].shape:
            pictures.append(picture)
            alphas.append(_alpha(upright))
        if file.format in SINGLE_FRAME_FORMATS:
            break
    height, width = pictures[0].shape[:2]
    if all(alpha is None for alpha in alphas):
        return np.stack(pictures), np.zeros((len(pictures), BLANK_MASK_SIDE, BLANK_MASK_SIDE), dtype=np.float32)
    opaque = np.ones((height, width), dtype=np.float32)
    return np.stack(pictures), np.float32(1.0) - np.stack([opaque if alpha is None else alpha for alpha in alphas])


def _colours(frame: Image.Image) -> Floats:
    if frame.mode == "I" or frame.mode.startswith("I;16"):  # 16 bits of grey, which convert("RGB") would clip at 255
        grey = np.clip(np.asarray(frame).astype(np.float32) / 65535.0, 0.0, 1.0)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(frame.convert("RGB")).astype(np.float32) / 255.0


def _alpha(frame: Image.Image) -> Floats | None:
    if "A" in frame.getbands():
        alpha = frame.getchannel("A")
    elif "transparency" in frame.info and frame.mode in ("P", "L", "RGB"):
        alpha = frame.convert("RGBA").getchannel("A")
    else:
        return None
    return np.asarray(alpha).astype(np.float32) / 255.0


def encode_png(picture: Any, texts: Mapping[str, str], compress_level: int) -> bytes:
    """Return one picture, [H, W, C] in 0..1 with 1, 3 or 4 channels, as an 8-bit PNG that carries `texts`.

    Values are cut to 0..1 and then to the level below, as ComfyUI does; what is not a number becomes 0.
    """
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    levels = np.clip(255.0 * values, 0, 255).astype(np.uint8)
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    stream = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(
        stream, format="PNG", pnginfo=info, compress_level=compress_level
    )
    return stream.getvalue()


def workflow_texts(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the text chunks that let ComfyUI reopen the workflow from the picture, each a JSON document."""
    texts = {} if prompt is None else {"prompt": json.dumps(prompt)}
    for key, value in (extra_pnginfo or {}).items():
        texts[key] = json.dumps(value)
    return texts
