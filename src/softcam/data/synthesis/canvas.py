"""Drawing on float images: smooth noise, soft spots and lines, laid over a picture where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Plane = NDArray[np.float64]
"""(S, S) values, or a window of them."""

Picture = NDArray[np.float64]
"""(S, S, 3) red, green and blue in [0, 1]."""

Point = tuple[float, float]
"""Row and column in pixels."""

SUPERSAMPLING = 4


@dataclass(frozen=True, eq=False)
class Stamp:
    """Weights in [0, 1] on a window of a square plane; 0 everywhere else.

    Args:
        window: Rows and columns.
        weight: One per pixel of the window.
    """

    window: tuple[slice, slice]
    weight: Plane

    def faded(self, factor: float) -> Stamp:
        """Return the stamp with its weights multiplied."""
        return Stamp(self.window, factor * self.weight)


def smooth_noise(generator: np.random.Generator, size: int, scale: float | Point) -> Plane:
    """Return noise (S, S) of mean 0 and standard deviation 1.

    Args:
        generator: Of the noise.
        size: Side of the plane in pixels.
        scale: Over how many pixels it changes; downwards and to the right where there are two numbers.
    """
    noise = ndimage.gaussian_filter(generator.standard_normal((size, size)), scale, mode="wrap")
    centred = noise - noise.mean()
    result: Plane = centred / max(float(centred.std()), 1e-12)
    return result


def smooth_curve(generator: np.random.Generator, size: int, scale: float) -> NDArray[np.float64]:
    """Return noise (S,) of mean 0 and standard deviation 1 that changes over about `scale` pixels."""
    noise = ndimage.gaussian_filter1d(generator.standard_normal(size), scale, mode="wrap")
    centred = noise - noise.mean()
    result: NDArray[np.float64] = centred / max(float(centred.std()), 1e-12)
    return result


def offsets(window: tuple[slice, slice], centre: Point) -> tuple[Plane, Plane]:
    """Return the distances of a window's pixels from a point, downwards and to the right."""
    down, across = np.ogrid[window]
    return down - centre[0], across - centre[1]


def whole(size: int) -> tuple[slice, slice]:
    """Return the window that is the whole plane."""
    return slice(0, size), slice(0, size)


def spot(size: int, centre: Point, radii: Point, *, edge: float, angle: float = 0.0) -> Stamp:
    """Return an ellipse: 1 inside, 0 outside, and a linear slope of `edge` of its radius between.

    Args:
        size: Side of the plane in pixels.
        centre: Row and column.
        radii: Along its two axes, in pixels; the slope lies inside of them.
        edge: Width of the slope as a share of the radius, in (0, 1].
        angle: Of the first axis against the rows, in radians.
    """
    window = _around(size, centre, max(radii))
    down, across = offsets(window, centre)
    along = down * np.cos(angle) + across * np.sin(angle)
    beside = across * np.cos(angle) - down * np.sin(angle)
    distance = np.hypot(along / radii[0], beside / radii[1])
    return Stamp(window, np.clip((1 - distance) / edge, 0, 1))


BUMPS = ((2, 0.14), (3, 0.1), (5, 0.05))
"""Waves around a ragged spot and the standard deviation of their heights, as a share of its radius."""


def ragged_spot(generator: np.random.Generator, size: int, centre: Point, radius: float, *, edge: float) -> Stamp:
    """Return a blob: a circle whose radius wanders by some of itself; 0 outside of 1.4 radii."""
    window = _around(size, centre, 1.4 * radius)
    down, across = offsets(window, centre)
    angle = np.arctan2(across, down)
    bumps = np.zeros_like(angle)
    for waves, height in BUMPS:
        bumps += generator.normal(0, height) * np.cos(waves * angle + generator.uniform(0, 2 * np.pi))
    limit = radius * np.clip(1 + bumps, 0.6, 1.4)
    return Stamp(window, np.clip((1 - np.hypot(down, across) / limit) / edge, 0, 1))


def _around(size: int, centre: Point, radius: float) -> tuple[slice, slice]:
    rows, columns = (
        slice(int(np.clip(np.floor(at - radius), 0, size)), int(np.clip(np.ceil(at + radius) + 1, 0, size)))
        for at in centre
    )
    return rows, columns


def lines(size: int, strokes: Sequence[tuple[Sequence[Point], float]]) -> Plane:
    """Return strokes in [0, 1], smooth at their edges.

    Args:
        size: Side of the plane in pixels.
        strokes: Points and width of each, in pixels.
    """
    fine = Image.new("L", (size * SUPERSAMPLING,) * 2)
    draw = ImageDraw.Draw(fine)
    for points, width in strokes:
        path = [(column * SUPERSAMPLING, row * SUPERSAMPLING) for row, column in points]
        draw.line(path, fill=255, width=max(1, round(width * SUPERSAMPLING)), joint="curve")
    return np.asarray(fine.resize((size, size), Image.Resampling.BOX), dtype=np.float64) / 255


def blend(picture: Picture, colour: Sequence[float], stamp: Stamp) -> None:
    """Lay a colour over a picture, in place."""
    part = picture[stamp.window]
    part += stamp.weight[..., None] * (np.asarray(colour) - part)


def tint(picture: Picture, factors: Sequence[float], stamp: Stamp) -> None:
    """Multiply a picture's colours by factors where the weight is 1, in place."""
    picture[stamp.window] *= 1 + stamp.weight[..., None] * (np.asarray(factors) - 1)
