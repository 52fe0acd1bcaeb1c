"""The bones of a chest seen from the front: spine, ribs, collarbones, shoulders, and the outline of the cage.

Lengths are shares of the image's side. Rows count from the top, columns from the spine, to the image's right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcam.data.synthesis.canvas import Plane, Point, lines

APEX, WIDEST = 0.075, 0.7
"""Rows in which the cage begins and from which on it is as wide as it gets."""


@dataclass(frozen=True)
class Patient:
    """What both radiographs of a patient share.

    Args:
        width: Half of the cage's at its widest.
        waist: Half of the trunk's.
        spacing: Of the ribs, from one to the next.
        bone: Density of bones, around 1.
        heart: Size of the heart, around 1.
        flesh: Density of soft tissue, around 1.
        breasts: Density of breasts, 0 or more.
    """

    width: float
    waist: float
    spacing: float
    bone: float
    heart: float
    flesh: float
    breasts: float


@dataclass(frozen=True, eq=False)
class Frame:
    """Where a pixel is.

    Args:
        size: Side of the image in pixels.
        origin: Row and column in pixels from which shares count.
        unit: Pixels per share of 1.
    """

    size: int
    origin: Point
    unit: float

    @property
    def down(self) -> Plane:
        """Rows, (S, 1)."""
        rows: Plane = (np.arange(self.size, dtype=np.float64)[:, None] - self.origin[0]) / self.unit
        return rows

    @property
    def across(self) -> Plane:
        """Columns, (1, S)."""
        columns: Plane = (np.arange(self.size, dtype=np.float64)[None] - self.origin[1]) / self.unit
        return columns

    def lines(self, strokes: Sequence[tuple[Sequence[Point], float]]) -> Plane:
        """Return strokes in [0, 1], (S, S).

        Args:
            strokes: Points and width of each.
        """
        row, column = self.origin
        placed = [([(row + r * self.unit, column + c * self.unit) for r, c in path], width) for path, width in strokes]
        return lines(self.size, [(path, width * self.unit) for path, width in placed])

    def step(self, inside: Plane, width: float) -> Plane:
        """Return 0 outside, 1 inside, and a smooth slope of a width between, at least as wide as a pixel.

        Args:
            inside: Distance from the border, > 0 inside.
            width: Of the slope.
        """
        ramp = np.clip(inside / max(width, 1 / self.unit) + 0.5, 0, 1)
        result: Plane = ramp**2 * (3 - 2 * ramp)
        return result

    def ellipse(self, centre: Point, radii: Point, width: float, tilt: float = 0) -> Plane:
        """Return 1 inside of an ellipse, 0 outside, and a slope of about a width between.

        Args:
            centre: Row and column.
            radii: Along rows and columns, before the tilt.
            width: Of the slope.
            tilt: In radians, clockwise on the image.
        """
        reach = max(radii) * (1 + 0.5 * max(width, 1 / self.unit) / min(radii))
        rows, columns = _near(self.down[:, 0] - centre[0], reach), _near(self.across[0] - centre[1], reach)
        down, across = self.down[rows] - centre[0], self.across[:, columns] - centre[1]
        along, beside = down * np.cos(tilt) - across * np.sin(tilt), across * np.cos(tilt) + down * np.sin(tilt)
        plane = np.zeros((self.size, self.size))
        distance = np.hypot(along / radii[0], beside / radii[1])
        plane[rows, columns] = self.step((1 - distance) * min(radii), width)
        return plane


def draw_patient(generator: np.random.Generator) -> Patient:
    """Return a patient."""
    return Patient(
        width=generator.uniform(0.355, 0.41),
        waist=generator.uniform(0.45, 0.51),
        spacing=generator.uniform(0.06, 0.069),
        bone=generator.uniform(0.75, 1.25),
        heart=generator.uniform(0.88, 1.12),
        flesh=generator.uniform(0.92, 1.08),
        breasts=generator.choice((0.0, 1.0)) * generator.uniform(0.03, 0.1),
    )


def draw_frame(generator: np.random.Generator, size: int) -> Frame:
    """Return how a patient stands before the detector: a little aside, higher or lower, nearer or farther."""
    origin = (size * generator.normal(0, 0.012), size * generator.normal(0.5, 0.012))
    return Frame(size, origin, size * generator.uniform(0.96, 1.04))


def half_width(frame: Frame, patient: Patient) -> Plane:
    """Return half the width of the cage in each row, (S, 1); 0 above its apex."""
    height = np.clip((WIDEST - frame.down) / (WIDEST - APEX), 0, 1)
    result: Plane = patient.width * (1 - height**2.3) ** (1 / 2.3)
    return result


def draw_bones(generator: np.random.Generator, frame: Frame, patient: Patient) -> Plane:
    """Return the density of all bones, (S, S)."""
    inside = frame.step(half_width(frame, patient) - np.abs(frame.across), 0.01)
    bones = _draw_spine(frame)
    for side in (-1, 1):
        bones = bones + inside * _draw_ribs(generator, frame, patient, side) + _draw_shoulder(generator, frame, side)
    result: Plane = patient.bone * bones
    return result


def _draw_spine(frame: Frame) -> Plane:
    column = frame.step(0.042 - np.abs(frame.across), 0.012)
    discs = 0.8 + 0.2 * np.cos(2 * np.pi * frame.down / 0.052)
    spines = frame.step(0.008 - np.abs(frame.across), 0.008) * np.clip(np.sin(2 * np.pi * frame.down / 0.052), 0, 1)
    result: Plane = 0.045 * column * discs + 0.03 * spines
    return result


def _draw_ribs(generator: np.random.Generator, frame: Frame, patient: Patient, side: int) -> Plane:
    """Return the ribs of a side: down from the spine, around, and further down to the front, where they cross."""
    away = side * frame.across
    share = np.clip(away / patient.width, 0, 1)
    ribs = np.zeros((frame.size, frame.size))
    for number in range(10):
        start = APEX + 0.015 + patient.spacing * number + generator.normal(0, 0.002)
        drop = 0.05 + 0.014 * number
        back = start + drop * share**1.7 - 0.02 * np.sin(np.pi * share)
        ribs += 0.1 * _bar(frame, back, 0.027) * frame.step(away - 0.03, 0.02)
        if 1 <= number <= 7:
            front = start + drop + 0.02 + (0.13 + 0.008 * number) * (1 - share) ** 1.15
            ribs += 0.075 * _bar(frame, front, 0.033) * frame.step(away - 0.1 - 0.012 * number, 0.05)
    return ribs


def _draw_shoulder(generator: np.random.Generator, frame: Frame, side: int) -> Plane:
    """Return collarbone, shoulder blade and the head of the upper arm."""
    away, lift = side * frame.across, generator.normal(0, 0.006)
    share = np.clip((away - 0.03) / 0.31, 0, 1)
    course = 0.175 + lift - 0.085 * share - 0.016 * np.sin(2 * np.pi * share)
    ends = frame.step(away - 0.03, 0.015) * frame.step(0.34 - away, 0.015)
    height = frame.step(0.16 - np.abs(frame.down - 0.3), 0.06)
    blade = height * frame.step(away - 0.335 - 0.12 * (frame.down - 0.25) ** 2, 0.012)
    head = frame.ellipse((0.165 + lift, side * 0.455), (0.055, 0.05), 0.04)
    shaft = frame.ellipse((0.28 + lift, side * 0.5), (0.13, 0.03), 0.03, tilt=-side * 0.2)
    result: Plane = 0.12 * _bar(frame, course, 0.024) * ends + 0.03 * blade + 0.07 * np.maximum(head, shaft)
    return result


def _bar(frame: Frame, course: Plane, width: float) -> Plane:
    """Return a long bone along a course (1, S) of rows: denser at its edges than inside."""
    half = 0.5 * width * np.hypot(1, np.gradient(course[0], frame.across[0]))
    reach = half * (1 + max(0.3, 1 / (frame.unit * width)))
    rows = _near(frame.down[:, 0], -float(np.min(course - reach)), float(np.max(course + reach)))
    distance = (frame.down[rows] - course) / half
    body = frame.step(0.5 * width * (1 - np.abs(distance)), 0.3 * width)
    plane = np.zeros((frame.size, frame.size))
    plane[rows] = body * (0.65 + 0.35 * np.clip(distance, -1, 1) ** 2)
    return plane


def _near(places: NDArray[np.float64], before: float, after: float | None = None) -> slice:
    """Return which of ascending places lie from so far before 0 to so far after it."""
    first, last = np.searchsorted(places, (-before, before if after is None else after))
    return slice(max(0, int(first) - 1), int(last) + 1)
