"""Lettering with Pillow's built-in font: pure functions over one image, float32 [H, W, 3] in 0..1."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]

PAPERS: dict[str, tuple[Colour, Colour]] = {
    "cream": ((244, 238, 224), (46, 40, 36)),
    "white": ((255, 255, 255), (32, 32, 32)),
    "black": ((18, 18, 20), (236, 232, 224)),
}
"""The colour of each paper and of the ink on it, as 8-bit RGB."""


def mount(picture: Floats, title: str, note: str, paper: str, margin: int) -> Floats:
    """Return `picture` on paper, lettered below: float32 [H + margin + foot, W + 2 * margin, 3].

    The foot is twice the margin where there is lettering, else one margin. Lettering too long for the picture's width
    is set smaller.
    """
    height, width = picture.shape[:2]
    title, note = (" ".join(text.split()) for text in (title, note))  # One line each: Pillow cannot centre several.
    foot = 2 * margin if title or note else margin
    background, ink = PAPERS[paper]
    sheet = Image.new("RGB", (width + 2 * margin, height + margin + foot), background)
    sheet.paste(Image.fromarray(np.rint(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)), (margin, margin))
    draw = ImageDraw.Draw(sheet)
    middle = sheet.width / 2
    top = margin + height
    if title and note:
        rows = [(title, 0.28, 0.36), (note, 0.15, 0.70)]  # text, size and middle, as shares of the foot
    else:
        rows = [(title or note, 0.28, 0.5)] if title or note else []
    for text, share, at in rows:
        font = fitted_font(text, foot * share, width)
        draw.text((middle, top + foot * at), text, fill=ink, font=font, anchor="mm")
    return np.asarray(sheet, dtype=np.float32) / 255.0


def fitted_font(text: str, size: float, width_max: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's font at `size` pixels, or smaller so that `text` is no wider than `width_max` pixels."""
    font = ImageFont.load_default(size)
    length = font.getlength(text)
    return font if length <= width_max else ImageFont.load_default(max(1.0, size * width_max / length))
