"""A prediction's evidence over its original, as `explain` writes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from softcam.imaging import DecodedImage, overlay_view, signed_colors
from softcam.nn import Regions
from softcam.predict import Prediction

LARGEST_OVERLAY = 2048
"""Longer side of an overlay in pixels; larger images are shown reduced."""


_LINE = 1 / 256
"""Width of a box's line as a share of the overlay's longer side."""


def draw_overlay(
    image: DecodedImage, prediction: Prediction, *, limit: float, regions: Regions | None = None
) -> npt.NDArray[np.uint8]:
    """Return the upright image with the evidence for the predicted class against its rival where the network looked.

    Args:
        image: The original.
        prediction: What was predicted for it.
        limit: Logits per cell that get the full colour.
        regions: Of the prediction, whose boxes are drawn in the colour of their sign; None for no boxes.

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
    return canvas if regions is None else _draw_boxes(canvas, regions, canvas.shape[1] / image.width)


def _draw_boxes(canvas: npt.NDArray[np.uint8], regions: Regions, scale: float) -> npt.NDArray[np.uint8]:
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    against, support = (tuple(map(int, color)) for color in signed_colors([[-1.0, 1.0]], 1.0)[0])
    width = max(1, round(_LINE * max(canvas.shape[:2])))
    for region in regions:
        x, y, across, down = (scale * value for value in region.box)
        # The line is inside the box, whose last pixel is the one before its edge.
        corners = (round(x), round(y), max(round(x + across) - 1, round(x)), max(round(y + down) - 1, round(y)))
        draw.rectangle(corners, outline=support if region.supports else against, width=width)
    return np.array(picture)


def _reduced(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a writable copy whose longer side is at most `LARGEST_OVERLAY`."""
    factor = min(1.0, LARGEST_OVERLAY / max(pixels.shape[:2]))
    if factor == 1.0:
        return pixels.copy()
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
