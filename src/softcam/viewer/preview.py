"""A picture of the original for the page: small enough to send, with all of its bits."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from softcam.imaging import DecodedImage

LONGEST_SIDE = 2048


@dataclass(frozen=True, eq=False)
class Preview:
    """An image as the page draws it.

    Args:
        width: Width in pixels; the original may be larger.
        height: Height in pixels.
        depth: Bits of a channel, 8 or 16.
        png: The encoded image. For 16 bits, red holds the upper and green the lower byte of the grey value.
    """

    width: int
    height: int
    depth: Literal[8, 16]
    png: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the preview as JSON-ready values, the PNG in base64."""
        png = base64.b64encode(self.png).decode("ascii")
        return {"width": self.width, "height": self.height, "depth": self.depth, "png": png}


def make_preview(image: DecodedImage, *, longest: int = LONGEST_SIDE) -> Preview:
    """Encode an image for the page, quickly rather than tightly.

    Args:
        image: The upright original.
        longest: Longer side of the preview in pixels, >= 1; larger images are reduced by the mean of what a pixel
            covers, smaller ones stay as they are.

    Returns:
        The preview: 16-bit grey with all 16 bits, everything else with 8.

    Raises:
        ValueError: If `longest` is below 1.

    Example:
        >>> preview = make_preview(DecodedImage(np.zeros((40, 60), np.uint16), "array", ""), longest=30)
        >>> preview.width, preview.height, preview.depth
        (30, 20, 16)
    """
    if longest < 1:
        raise ValueError(f"Expected `longest` to be at least 1 pixel, but got {longest}.")
    deep = image.pixels.dtype == np.uint16 and image.pixels.ndim == 2
    share = min(1.0, longest / max(image.width, image.height))
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    pixels = _split_bytes(_reduce_deep(image.pixels, size)) if deep else _reduce_flat(image, size)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return Preview(*size, 16 if deep else 8, stream.getvalue())


def _reduce_deep(pixels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    if pixels.shape == size[::-1]:
        return np.asarray(pixels, np.uint16)
    reduced = Image.fromarray(pixels.astype(np.float32)).resize(size, Image.Resampling.BOX)
    rounded: npt.NDArray[np.uint16] = np.rint(np.asarray(reduced)).astype(np.uint16)
    return rounded


def _reduce_flat(image: DecodedImage, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    pixels = image.pixels if image.pixels.dtype == np.uint8 else image.to_rgb8()
    if pixels.shape[:2] == size[::-1]:
        return np.asarray(pixels, np.uint8)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _split_bytes(pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    upper, lower = (pixels >> 8).astype(np.uint8), (pixels & 0xFF).astype(np.uint8)
    return np.stack([upper, lower, np.zeros_like(upper)], axis=-1)
