"""What makes a chest abnormal without lung that fills: a large heart, scars, a little fluid; and what doctors put in.

Each is a density that is added to a healthy chest's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.interpolate import make_interp_spline

from softcam.data.synthesis.canvas import Plane, Point, smooth_noise
from softcam.data.synthesis.chest import Chest
from softcam.data.synthesis.ribcage import Frame, Patient

LARGE = (1.3, 1.55)
"""By how much a large heart is larger, from and to."""

MEASURE = 25
"""Points of a smooth line."""


def enlarge_heart(generator: np.random.Generator, patient: Patient) -> Patient:
    """Return a patient with a large heart."""
    return dataclasses.replace(patient, heart=patient.heart * generator.uniform(*LARGE))


def add_density(chest: Chest, density: Plane) -> Chest:
    """Return a chest with more in it."""
    return dataclasses.replace(chest, density=chest.density + density)


def draw_scars(generator: np.random.Generator, chest: Chest) -> Plane:
    """Return the net of fine lines that fibrosis draws, (S, S): denser below and at the sides of both lungs."""
    size = len(chest.lungs)
    frame, net = _stand(size), np.zeros((size, size))
    for scale in (0.0055, 0.01):
        net += np.exp(-((smooth_noise(generator, size, max(0.7, scale * size)) / 0.3) ** 2))
    below = frame.step(frame.down - generator.uniform(0.4, 0.52), 0.3)
    aside = 0.35 + 0.65 * frame.step(np.abs(frame.across) - 0.17, 0.16)
    haze = 0.3 + 0.1 * smooth_noise(generator, size, 0.04 * size)
    result: Plane = generator.uniform(0.05, 0.085) * (net + haze) * below * aside * chest.lungs
    return result


def draw_effusion(generator: np.random.Generator, chest: Chest) -> Plane:
    """Return a little fluid beside a lung's base, (S, S): its surface rises towards the chest wall."""
    size = len(chest.lungs)
    side = int(generator.choice((-1, 1)))
    frame = _stand(size)
    lung = (chest.lungs > 0.5) & (side * frame.across > 0)
    rows = np.nonzero(lung.any(1))[0]
    base = frame.down[rows[-1], 0] - generator.uniform(0.05, 0.12)
    level = base - 0.16 * np.clip(side * frame.across / 0.36, 0, None) ** 5
    depth = np.clip((frame.down - level) / 0.05, 0, 1)
    result: Plane = 0.42 * chest.lungs * depth * (side * frame.across > 0)
    return result


def draw_pacemaker(generator: np.random.Generator, chest: Chest) -> Plane:
    """Return a pacemaker below the left collarbone, and its lead, (S, S)."""
    frame = _stand(len(chest.lungs))
    row, column = 0.24 + generator.normal(0, 0.012), 0.25 + generator.normal(0, 0.012)
    case = frame.ellipse((row, column), (0.036, 0.042), 0.006, tilt=generator.normal(0, 0.3))
    header = frame.ellipse((row - 0.034, column - 0.012), (0.014, 0.022), 0.006)
    tip = (0.68 + generator.normal(0, 0.015), 0.09 + generator.normal(0, 0.015))
    lead = [(row - 0.03, column - 0.02), (row - 0.05, 0.13), (0.24, 0.0), (0.42, -0.035), (0.6, -0.035), tip]
    result: Plane = 0.5 * np.maximum(case, 0.7 * header) + 0.22 * frame.lines([(_smooth(lead), 0.0055)])
    return result


def draw_wires(generator: np.random.Generator, chest: Chest) -> Plane:
    """Return the wires that close a breastbone after surgery, (S, S)."""
    frame, strokes = _stand(len(chest.lungs)), []
    turns = np.linspace(0, 2 * np.pi, MEASURE)
    for row in np.arange(0.26, 0.26 + 0.066 * generator.integers(4, 7), 0.066):
        centre, tilt = generator.normal((row, 0.002), 0.005), generator.normal(0, 0.25)
        height, width = generator.uniform(0.006, 0.01), generator.uniform(0.016, 0.022)
        ring = centre + np.stack((height * np.sin(turns) + tilt * width * np.cos(turns), width * np.cos(turns)), 1)
        strokes.append(([(float(down), float(across)) for down, across in ring], 0.0032))
    result: Plane = 0.32 * frame.lines(strokes)
    return result


def draw_tubes(generator: np.random.Generator, chest: Chest) -> Plane:
    """Return a tube in the windpipe, and a line from the neck to the heart, (S, S): one of them or both."""
    frame, strokes = _stand(len(chest.lungs)), []
    chosen = int(generator.integers(3))
    if chosen != 0:
        end, lean = generator.uniform(0.24, 0.29), generator.normal(0, 0.006)
        for beside in (-0.009, 0.009):
            tube = [(-0.02, lean + beside), (0.1, beside), (0.2, beside), (end, beside)]
            strokes.append((_smooth(tube), 0.003))
    if chosen != 1:
        neck = generator.uniform(-0.13, -0.08)
        line = [(-0.02, neck), (0.1, neck + 0.02), (0.22, -0.045), (generator.uniform(0.38, 0.46), -0.04)]
        strokes.append((_smooth(line), 0.0045))
    result: Plane = 0.17 * frame.lines(strokes)
    return result


FINDINGS: Mapping[str, Callable[[np.random.Generator, Chest], Plane]] = {
    "scars": draw_scars,
    "effusion": draw_effusion,
    "pacemaker": draw_pacemaker,
    "wires": draw_wires,
}
"""Name of what is not normal -> the density that it adds."""


def _stand(size: int) -> Frame:
    return Frame(size, (0.0, size / 2), size)


def _smooth(points: Sequence[Point]) -> list[Point]:
    """Return a smooth line through points."""
    spline = make_interp_spline(np.linspace(0, 1, len(points)), np.asarray(points), k=3)
    return [(float(row), float(column)) for row, column in spline(np.linspace(0, 1, MEASURE))]
