"""The circle that a fundus camera sees, found in a photograph, and the square around it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float64]

WORKING_SIDE = 320
"""Longer side, in pixels, of the copy in which the circle is looked for."""

BRIGHT = 0.12
"""Share of the way from the background to the bright parts from which a pixel belongs to the fundus."""

LEAST_RADIUS, MOST_RADIUS = 0.25, 0.75
"""Radius as shares of the shorter and of the longer side of the image."""

TRIALS = 300
"""Circles through three points that are tried."""

TOLERANCE = 0.015
"""Distance to the circle, as a share of its radius, up to which an edge pixel is on it."""

LEAST_SUPPORT = 0.6
"""Least share of the edge pixels that have to be on the circle."""

LEAST_ARC = 0.3
"""Least share of the directions from the centre in which an edge pixel is on the circle."""


class Circle(NamedTuple):
    """A circle in pixels; the centre of pixel (0, 0) is at (0.5, 0.5).

    Args:
        x: Centre from the left edge.
        y: Centre from the upper edge.
        radius: Above 0.
    """

    x: float
    y: float
    radius: float


class Square(NamedTuple):
    """A square of whole pixels, which may reach beyond the image.

    Args:
        x: Left edge.
        y: Upper edge.
        side: At least 1.
        found: Whether it is the square around a circle that was found, rather than the centre of the image.
    """

    x: int
    y: int
    side: int
    found: bool

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge."""
        return self.x, self.y, self.x + self.side, self.y + self.side

    @property
    def columns(self) -> dict[str, int]:
        """What a manifest keeps of it, so that a place in the cut image leads back to the original."""
        return {"crop_x": self.x, "crop_y": self.y, "crop_side": self.side, "circle": int(self.found)}


def find_circle(pixels: NDArray[np.uint8]) -> Circle | None:
    """Return the circle of the fundus, also where the camera cut it off; None if there is none to be sure of.

    Pixels brighter than the background make the fundus; of its outline, what lies on the border of the image is the
    cut and not the circle. The circle is the one through three points of the rest that most other points lie on, and
    is then fitted to these by least squares.

    Args:
        pixels: (H, W, 3) or (H, W) uint8.

    Reference: Fischler & Bolles 1981 (consensus of random samples); Kåsa 1976 (least squares).
    """
    height, width = pixels.shape[:2]
    factor = max(height, width) / min(WORKING_SIDE, max(height, width))
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    bright = Image.fromarray(small.max(axis=2) if small.ndim == 3 else small)
    # The noise of a dark background would draw the outline anywhere.
    calm = np.asarray(bright.filter(ImageFilter.MedianFilter(5)))
    circle = _fit(_outline(_threshold(calm)), size)
    if circle is None or not _is_plausible(circle, size):
        return None
    scale_x, scale_y = width / size[0], height / size[1]
    return Circle(circle.x * scale_x, circle.y * scale_y, circle.radius * (scale_x + scale_y) / 2)


def find_square(pixels: NDArray[np.uint8]) -> Square:
    """Return the square around the fundus, or the largest one in the middle of the image if no circle was found.

    Args:
        pixels: (H, W, 3) or (H, W) uint8.
    """
    circle = find_circle(pixels)
    if circle is not None:
        side = max(1, round(2 * circle.radius))
        return Square(round(circle.x - side / 2), round(circle.y - side / 2), side, found=True)
    height, width = pixels.shape[:2]
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side, found=False)


def _threshold(bright: NDArray[np.uint8]) -> NDArray[np.bool_]:
    dark, light = np.percentile(bright, (1, 95))
    inside: NDArray[np.bool_] = bright > dark + max(BRIGHT * (light - dark), 4.0)
    return inside


def _outline(inside: NDArray[np.bool_]) -> Floats:
    """Return the first and last pixels of each row and column, (P, 2) x and y, but for those at the image's border."""
    height, width = inside.shape
    points = []
    for plane, swapped in ((inside, False), (inside.T, True)):
        lines = np.flatnonzero(plane.any(axis=1))
        first = plane[lines].argmax(axis=1)
        last = plane.shape[1] - plane[lines][:, ::-1].argmax(axis=1)
        for ends, edge in ((first, 0), (last, plane.shape[1])):
            kept = ends != edge
            pair = (ends[kept].astype(np.float64), lines[kept] + 0.5)
            points.append(np.stack(pair[::-1] if swapped else pair, axis=1))
    found = np.concatenate(points)
    near = (found[:, 0] < 1.5) | (found[:, 1] < 1.5) | (found[:, 0] > width - 1.5) | (found[:, 1] > height - 1.5)
    result: Floats = found[~near]
    return result


def _fit(points: Floats, size: tuple[int, int]) -> Circle | None:
    if len(points) < 30:
        return None
    generator = np.random.default_rng(0)
    corners = points[generator.integers(len(points), size=(TRIALS, 3))]  # (T, 3, 2)
    centres, radii = _through(corners)
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(points[None] - centres[:, None], axis=2)  # (T, P)
        on = np.abs(distance - radii[:, None]) <= np.maximum(TOLERANCE * radii[:, None], 1.0)
    # A circle far larger than the image runs through everything.
    on[~((radii > LEAST_RADIUS * min(size)) & (radii < MOST_RADIUS * max(size)))] = False
    best = on[int(on.sum(axis=1).argmax())]
    circle = _least_squares(points[best])
    for _ in range(2):
        if circle is None:
            return None
        distance = np.hypot(points[:, 0] - circle.x, points[:, 1] - circle.y)
        best = np.abs(distance - circle.radius) <= max(TOLERANCE * circle.radius, 1.0)
        circle = _least_squares(points[best])
    if circle is None or best.mean() < LEAST_SUPPORT or _arc(points[best], circle) < LEAST_ARC:
        return None
    return circle


def _through(corners: Floats) -> tuple[Floats, Floats]:
    """Return centres (T, 2) and radii (T,) of the circles through three points each; NaN where these lie on a line."""
    first, second, third = corners[:, 0], corners[:, 1], corners[:, 2]
    b, c = second - first, third - first
    cross = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    cross = np.where(np.abs(cross) < 1e-6, np.nan, cross)
    bb, cc = (b**2).sum(axis=1), (c**2).sum(axis=1)
    offset = np.stack([c[:, 1] * bb - b[:, 1] * cc, b[:, 0] * cc - c[:, 0] * bb], axis=1) / cross[:, None]
    return first + offset, np.linalg.norm(offset, axis=1)


def _least_squares(points: Floats) -> Circle | None:
    if len(points) < 3:
        return None
    rows = np.column_stack([2 * points, np.ones(len(points))])
    x, y, rest = np.linalg.lstsq(rows, (points**2).sum(axis=1), rcond=None)[0]
    square = rest + x**2 + y**2
    return Circle(float(x), float(y), float(np.sqrt(square))) if square > 0 else None


def _arc(points: Floats, circle: Circle) -> float:
    angles = np.arctan2(points[:, 1] - circle.y, points[:, 0] - circle.x)
    return len(np.unique(np.floor((angles + np.pi) / (2 * np.pi) * 72).clip(0, 71))) / 72


def _is_plausible(circle: Circle, size: tuple[int, int]) -> bool:
    width, height = size
    inside = 0 < circle.x < width and 0 < circle.y < height
    return inside and LEAST_RADIUS * min(size) < circle.radius < MOST_RADIUS * max(size)
