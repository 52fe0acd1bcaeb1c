"""A healthy eye's fundus, drawn: disc, macula, vessels, choroid, and what is harmless but catches the eye."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcam.data.synthesis.canvas import (
    Picture,
    Point,
    Stamp,
    blend,
    lines,
    offsets,
    smooth_noise,
    spot,
    tint,
    whole,
)

FIELD = 0.47
"""Radius of the field of view as a share of the image's side."""

RIM = 0.06
"""Width of the ring inside the field of view in which no finding lies, likewise."""

OCTAVES = ((0.045, 0.1), (0.035, 0.03), (0.025, 0.012), (0.02, 0.005))
"""Amplitude and scale of the choroid's texture, as shares of light and of the image's side."""

VEIN, ARTERY = (0.013, (0.62, 0.42, 0.5)), (0.009, (0.8, 0.58, 0.6))
"""Width as a share of the image's side, and what is left of red, green and blue."""


@dataclass(frozen=True)
class Patient:
    """What both eyes of a patient share.

    Args:
        colour: Of the fundus.
        contrast: Of the choroid, around 1.
        vessels: Of the vessels, around 1.
    """

    colour: tuple[float, float, float]
    contrast: float
    vessels: float


@dataclass(frozen=True, eq=False)
class Fundus:
    """An eye without findings.

    Args:
        picture: What the camera would see, without its noise.
        inside: (S, S) bool, the part of the field of view in which findings may lie.
    """

    picture: Picture
    inside: NDArray[np.bool_]


def draw_patient(generator: np.random.Generator) -> Patient:
    """Return a patient."""
    red = generator.uniform(0.62, 0.82)
    green = red * generator.uniform(0.42, 0.56)
    colour = (red, green, green * generator.uniform(0.3, 0.55))
    return Patient(colour, generator.uniform(0.7, 1.4), generator.uniform(0.8, 1.2))


def draw_fundus(generator: np.random.Generator, patient: Patient, *, size: int, left: bool) -> Fundus:
    """Return an eye of a patient.

    Args:
        generator: Of everything that differs between photographs.
        patient: Whose eye it is.
        size: Side of the image in pixels.
        left: Whether it is the left eye, with the disc on the left.
    """
    side = -1 if left else 1
    centre = (size / 2 + generator.normal(0, 0.01 * size), size / 2 + generator.normal(0, 0.01 * size))
    disc = (centre[0] + generator.normal(0, 0.02) * size, centre[1] + side * generator.uniform(0.2, 0.27) * size)
    macula = (centre[0] + generator.normal(0.02, 0.02) * size, centre[1] - side * generator.uniform(0.05, 0.1) * size)
    picture = _draw_ground(generator, patient, size, centre)
    tint(picture, (0.72, 0.68, 0.75), spot(size, macula, (0.16 * size, 0.16 * size), edge=1.0))
    _draw_disc(generator, picture, disc)
    _draw_vessels(generator, picture, patient, disc, side)
    _draw_harmless(generator, picture, centre)
    distance = np.hypot(*offsets(whole(size), centre))
    field = np.clip((FIELD * size - distance) / (0.012 * size), 0, 1)
    far = np.hypot(*offsets(whole(size), disc)) >= 0.11 * size
    return Fundus(np.clip(picture, 0, 1) * field[..., None], (distance < (FIELD - RIM) * size) & far)


def _draw_ground(generator: np.random.Generator, patient: Patient, size: int, centre: Point) -> Picture:
    down, across = offsets(whole(size), centre)
    light = 1 - 0.28 * (np.hypot(down, across) / (FIELD * size)) ** 2
    light += generator.normal(0, 0.06) * down / size + generator.normal(0, 0.06) * across / size
    choroid = np.zeros((size, size))
    for weight, scale in OCTAVES:
        choroid += weight * smooth_noise(generator, size, scale * size)
    # The choroid shows in red and green, hardly in blue.
    texture = 1 + patient.contrast * np.asarray((0.7, 1.0, 0.5)) * choroid[..., None]
    picture: Picture = np.asarray(patient.colour) * light[..., None] * texture
    return picture


def _draw_disc(generator: np.random.Generator, picture: Picture, disc: Point) -> None:
    size = len(picture)
    radius = generator.uniform(0.058, 0.072) * size
    blend(picture, (0.95, 0.72, 0.42), spot(size, disc, (radius * 1.08, radius), edge=0.25).faded(0.85))
    blend(picture, (1.0, 0.9, 0.68), spot(size, disc, (radius * 0.5, radius * 0.45), edge=0.6).faded(0.8))


def _draw_vessels(generator: np.random.Generator, picture: Picture, patient: Patient, disc: Point, side: int) -> None:
    size = len(picture)
    for width, factors in (VEIN, ARTERY):
        tree = _Vessels(generator, size)
        for up in (-1, 1):
            for heading in (-side * generator.uniform(0.15, 0.5), side * generator.uniform(0.4, 0.9)):
                tree.grow(disc, float(np.arctan2(heading, up)), width * size, bend=-side * up)
        weight = np.clip(patient.vessels * lines(size, tree.strokes), 0, 1)
        uneven = 1 + 0.08 * smooth_noise(generator, size, 0.02 * size)
        tint(picture, factors, Stamp(whole(size), weight * uneven))


class _Vessels:
    """Vessels that wander from the disc, and their branches.

    Args:
        generator: Of their ways.
        size: Side of the image in pixels.
    """

    def __init__(self, generator: np.random.Generator, size: int) -> None:
        self.strokes: list[tuple[list[Point], float]] = []
        self._generator = generator
        self._size = size

    def grow(self, start: Point, heading: float, width: float, *, bend: int, depth: int = 0) -> None:
        """Add a vessel: the main ones (depth 0) bend around the macula, branches go straight and are shorter."""
        generator, step = self._generator, 0.02 * self._size
        curve = 0.0 if depth else 0.055 * bend
        point, points = start, [start]
        for number in range(int(generator.integers(14, 24)) // (depth + 1)):
            heading += curve + generator.normal(0, 0.12)
            point = (point[0] + step * np.cos(heading), point[1] + step * np.sin(heading))
            points.append(point)
            curve *= 0.93
            if depth < 3 and number > 2 and width > 0.003 * self._size and generator.random() < 0.17:
                turn = generator.choice((-1, 1)) * generator.uniform(0.4, 0.9)
                self.grow(point, heading + turn, width * 0.62, bend=bend, depth=depth + 1)
            width *= 0.975
        third = max(2, len(points) // 3)
        for index, first in enumerate(range(0, max(1, len(points) - 1), third)):
            self.strokes.append((points[first : first + third + 1], width * (1.35 - 0.22 * index)))


def _draw_harmless(generator: np.random.Generator, picture: Picture, centre: Point) -> None:
    """Draw pigment, pale drusen-like spots, dust and reflexes: as many in every eye, whatever its label."""
    size = len(picture)
    for _ in range(int(generator.integers(1, 4))):
        radius = generator.uniform(0.012, 0.03) * size
        radii = (radius, radius * generator.uniform(0.7, 1.3))
        tint(picture, (0.72, 0.78, 0.8), spot(size, _somewhere(generator, size, centre), radii, edge=0.9))
    for _ in range(int(generator.integers(2, 6))):
        radius = generator.uniform(0.01, 0.022) * size
        pale = spot(size, _somewhere(generator, size, centre), (radius, radius), edge=1.0)
        blend(picture, (0.93, 0.7, 0.5), pale.faded(0.22))
    for _ in range(int(generator.integers(1, 4))):
        dust = spot(size, _somewhere(generator, size, centre), (0.006 * size, 0.006 * size), edge=0.5)
        blend(picture, (generator.uniform(0.25, 0.4),) * 3, dust.faded(0.6))
    for _ in range(int(generator.integers(0, 3))):
        angle = generator.uniform(0, np.pi)
        streak = spot(size, _somewhere(generator, size, centre), (0.09 * size, 0.012 * size), edge=1.0, angle=angle)
        blend(picture, (0.98, 0.9, 0.75), streak.faded(0.18))


def _somewhere(generator: np.random.Generator, size: int, centre: Point) -> Point:
    distance = np.sqrt(generator.random()) * (FIELD - RIM) * size
    angle = generator.uniform(0, 2 * np.pi)
    return centre[0] + distance * np.cos(angle), centre[1] + distance * np.sin(angle)
