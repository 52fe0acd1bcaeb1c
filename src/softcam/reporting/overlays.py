"""A prediction's evidence over its original, as `explain` writes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from softcam.imaging import DecodedImage, overlay_view
from softcam.predict import Prediction

LARGEST_OVERLAY = 2048
"""Longer side of an overlay in pixels; larger images are shown reduced."""


def draw_overlay(image: DecodedImage, prediction: Prediction, *, limit: float) -> npt.NDArray[np.uint8]:
    """Return the upright image with the evidence for the predicted class against its rival where the network looked.

    Args:
        image: The original.
        prediction: What was predicted for it.
        limit: Logits per cell that get the full colour.

    Returns:
        (H, W, 3); images with a side above `LARGEST_OVERLAY` are reduced.

    Raises:
        ValueError: If the prediction failed or the image is not the one that was predicted.
    """
    geometry = prediction.geometry
    if geometry is None or (geometry.original_height, geometry.original_width) != (image.height, image.width):
        raise ValueError("Expected `prediction` to be one of `image`, but it failed or is about another size.")
    canvas = _reduced(image.to_rgb8())
    overlay_view(canvas, geometry, prediction.margin(), limit)
    return canvas


def _reduced(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a writable copy whose longer side is at most `LARGEST_OVERLAY`."""
    factor = min(1.0, LARGEST_OVERLAY / max(pixels.shape[:2]))
    if factor == 1.0:
        return pixels.copy()
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
