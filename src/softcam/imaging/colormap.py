"""Signed evidence as colour: blue against, near-white nothing, orange for; one scale for a whole page.

Both arms have the same lightness and chroma at the same distance from zero and differ in hue alone, along the blue to
yellow axis that is kept in the common forms of colour blindness; in greyscale print the sign is lost, the strength not.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from softcam.imaging.geometry import Geometry

_HALF = 255  # colours on each side of neutral

# Anchors as (lightness, chroma, hue in degrees) in OKLab's polar form; straight lines between them.
_AGAINST = (0.60, 0.16, 250.0)
_NEUTRAL = (0.97, 0.0, 0.0)
_FOR = (0.60, 0.16, 45.0)

_LAB_TO_CONE_ROOTS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_CONES_TO_LINEAR_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def signed_colors(values: npt.ArrayLike, limit: float) -> npt.NDArray[np.uint8]:
    """Colour signed values: -limit blue, 0 near-white, +limit orange; beyond the limit the end colours stay.

    Args:
        values: (H, W), any unit, finite.
        limit: The value that gets the full colour, positive, in the same unit.

    Returns:
        (H, W, 3) sRGB.

    Raises:
        ValueError: If `values` is not a finite matrix or `limit` is not positive.

    Example:
        >>> signed_colors([[-1.0, 0.0, 2.0]], limit=1.0).tolist()
        [[[26, 131, 219], [245, 245, 245], [203, 90, 26]]]

    Reference:
        Ottosson, "A perceptual color space for image processing", 2020 (OKLab).
    """
    strength = np.clip(_matrix(values) / _checked_limit(limit), -1, 1)
    index = np.rint(strength * _HALF).astype(np.intp) + _HALF
    return _palette()[index]


def overlay(
    image: npt.NDArray[np.uint8], values: npt.ArrayLike, limit: float, *, opacity: float = 0.5
) -> npt.NDArray[np.uint8]:
    """Lay evidence over an image: blue against, orange for, the stronger the more opaque; none leaves it untouched.

    Opacity alone tells the strength, since the pale middle of the colour scale would veil the image. The map is
    enlarged bilinearly, cell centres in place; this is for the eye, not for measuring.

    Args:
        image: (H, W) or (H, W, 3) uint8, exactly what the map covers.
        values: (h, w) signed evidence, finite.
        limit: The value that gets full colour and full opacity, positive.
        opacity: Share of colour at `limit`, in [0, 1]; it falls linearly to nothing at 0.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: If a shape, type or value does not fit.
    """
    base = _rgb(image)
    if not 0 <= opacity <= 1:
        raise ValueError(f"Expected `opacity` to be in [0, 1], but got {opacity}.")
    evidence = _enlarged(_matrix(values), base.shape[0], base.shape[1])
    alpha = opacity * np.clip(np.abs(evidence) / _checked_limit(limit), 0, 1)[..., None]
    return np.rint(base * (1 - alpha) + signed_colors(np.sign(evidence), 1.0) * alpha).astype(np.uint8)


def overlay_view(image: npt.NDArray[np.uint8], geometry: Geometry, values: npt.ArrayLike, limit: float) -> None:
    """Lay evidence, in place, over the part of an original that the network saw.

    Args:
        image: (H, W, 3) uint8, the whole original, which may be reduced.
        geometry: From the network's input, which the map covers, to the original.
        values: (h, w) signed evidence, finite.
        limit: The value that gets full colour, positive.

    Raises:
        ValueError: If a shape, type or value does not fit.
    """
    scale_x, scale_y = image.shape[1] / geometry.original_width, image.shape[0] / geometry.original_height
    x0, y0, x1, y1 = geometry.view.corners
    left, top = round(x0 * scale_x), round(y0 * scale_y)
    right, bottom = max(round(x1 * scale_x), left + 1), max(round(y1 * scale_y), top + 1)
    image[top:bottom, left:right] = overlay(image[top:bottom, left:right], values, limit)


def scale_limit(maps: npt.ArrayLike, *, quantile: float = 0.995) -> float:
    """Choose one colour limit for several maps, so that equal colours mean equal evidence on all of them.

    Args:
        maps: Any shape, finite, at least one value.
        quantile: Share of absolute values that stay within the limit, in (0, 1].

    Returns:
        The limit, positive: 1 where every map is zero.

    Raises:
        ValueError: If there is no value, a value is not finite, or `quantile` is out of range.

    Example:
        >>> scale_limit([[-4.0, 1.0], [2.0, 0.0]], quantile=1.0)
        4.0
    """
    magnitudes = np.abs(np.asarray(maps, dtype=np.float64))
    if magnitudes.size == 0 or not np.isfinite(magnitudes).all():
        raise ValueError(f"Expected `maps` to hold finite values, but got shape {magnitudes.shape} or NaN in it.")
    if not 0 < quantile <= 1:
        raise ValueError(f"Expected `quantile` to be in (0, 1], but got {quantile}.")
    # Where the evidence is sparse, the quantile may be zero although the peak is not.
    return float(np.quantile(magnitudes, quantile)) or float(magnitudes.max()) or 1.0


def encode_png(pixels: npt.NDArray[Any]) -> bytes:
    """Encode an image as PNG, the same bytes for the same pixels.

    Args:
        pixels: (H, W) or (H, W, 3) uint8, or (H, W) uint16.

    Raises:
        ValueError: If shape or type do not fit.
    """
    if not (pixels.dtype == np.uint16 and pixels.ndim == 2):
        _rgb(pixels)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=False)
    return stream.getvalue()


@lru_cache(maxsize=1)
def _palette() -> npt.NDArray[np.uint8]:
    """Return the colours (2 * _HALF + 1, 3) from the most negative to the most positive."""
    share = np.linspace(-1, 1, 2 * _HALF + 1)[:, None]
    against, neutral, support = (_polar_to_lab(*anchor) for anchor in (_AGAINST, _NEUTRAL, _FOR))
    lab = neutral + np.abs(share) * (np.where(share < 0, against, support) - neutral)
    palette = _lab_to_srgb(lab)
    palette.setflags(write=False)
    return palette


def _polar_to_lab(lightness: float, chroma: float, hue: float) -> npt.NDArray[np.float64]:
    angle = math.radians(hue)
    return np.array([lightness, chroma * math.cos(angle), chroma * math.sin(angle)])


def _lab_to_srgb(lab: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    linear = np.clip((lab @ _LAB_TO_CONE_ROOTS.T) ** 3 @ _CONES_TO_LINEAR_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colors: npt.NDArray[np.uint8] = np.rint(255 * encoded).astype(np.uint8)
    return colors


def _enlarged(values: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float32]:
    resized = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _matrix(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"Expected `values` to be a finite (H, W) matrix, but got shape {matrix.shape} or NaN in it.")
    return matrix


def _checked_limit(limit: float) -> float:
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"Expected `limit` to be finite and positive, but got {limit}. Use `scale_limit`.")
    return limit


def _rgb(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return grey or RGB as (H, W, 3)."""
    colour = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (image.ndim == 2 or colour):
        raise ValueError(
            f"Expected the image to be (H, W) or (H, W, 3) uint8, but got {image.shape} {image.dtype}. Convert it."
        )
    return image if colour else np.repeat(image[..., None], 3, axis=2)
