"""Drawing with OpenCV: pure functions over one image, float32 [H, W, 3] in 0..1."""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def ink_coverage(picture: Floats, detail: float, thickness: int) -> Floats:
    """Return how much ink covers each pixel, float32 [H, W] in 0..1, along the edges of `picture`.

    The lines are the dark side of a difference of Gaussians, cut softly: `detail` in 0..1 is how faint an edge may be
    to be drawn, and `thickness` the width of a line in pixels.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    fine = cv2.GaussianBlur(grey, (0, 0), sigmaX=0.6 * thickness)
    coarse = cv2.GaussianBlur(grey, (0, 0), sigmaX=1.6 * 0.6 * thickness)
    faintest = 0.04 * (1.0 - detail) + 0.002
    return np.clip((coarse - fine) / faintest - 0.5, 0.0, 1.0)


def flatten_paint(picture: Floats, radius: int, colour_range: float) -> Floats:
    """Return `picture` in flat strokes: colours within `radius` pixels and `colour_range` merge (mean shift)."""
    pixels = np.rint(picture * 255.0).astype(np.uint8)
    shifted = cv2.pyrMeanShiftFiltering(pixels, sp=radius, sr=colour_range * 255.0)
    return shifted.astype(np.float32) / 255.0


def saturate(picture: Floats, factor: float) -> Floats:
    """Return `picture` with its saturation (HLS) times `factor`."""
    hls = cv2.cvtColor(picture, cv2.COLOR_RGB2HLS)
    hls[..., 2] = np.clip(hls[..., 2] * factor, 0.0, 1.0)
    return cv2.cvtColor(hls, cv2.COLOR_HLS2RGB)
