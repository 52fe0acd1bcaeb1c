"""A healthy retina as optical coherence tomography shows it: layers, fovea, vessels' shadows, choroid, speckle.

Brightness is on the scanner's logarithmic scale, on which shadows and speckle are sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softcam.data.synthesis.canvas import Plane, offsets, smooth_curve, smooth_noise, spot, whole

Curve = NDArray[np.float64]
"""(S,) one value per column; rows, where it is a line."""


@dataclass(frozen=True)
class Layer:
    """A layer of the retina.

    Args:
        name: For the reader.
        brightness: In [0, 1].
        thickness: As a share of the retina's.
        fovea: By how much of itself it is thicker in the middle of the fovea.
    """

    name: str
    brightness: float
    thickness: float
    fovea: float = 0.0


INNER = (
    Layer("nerve fibres", 0.66, 0.09, -1),
    Layer("ganglion cells", 0.41, 0.14, -1),
    Layer("inner plexiform", 0.49, 0.12, -1),
    Layer("inner nuclear", 0.3, 0.1, -0.97),
    Layer("outer plexiform", 0.46, 0.07, -0.7),
    Layer("outer nuclear", 0.22, 0.25, 0.85),
)
OUTER = (
    Layer("external limiting membrane", 0.33, 0.02),
    Layer("myoids", 0.26, 0.05),
    Layer("ellipsoids", 0.74, 0.045),
    Layer("outer segments", 0.46, 0.05),
    Layer("pigment epithelium", 0.9, 0.065),
)
"""Those that rise with the pigment epithelium, which is the last of them."""

VITREOUS, DEPOSIT, BRUCH, CHOROID, SCLERA = 0.1, 0.4, 0.62, 0.52, 0.4
"""Brightness of what lies above, below the epithelium where it is lifted, and below the retina."""

PIT = 0.068
"""Standard deviation of the fovea's profile as a share of the image's side."""


@dataclass(frozen=True)
class Patient:
    """What both eyes of a patient share.

    Args:
        retina: Thickness away from the fovea as a share of the image's side.
        choroid: Likewise.
        looks: How many scans the machine averages.
        grain: Width of its speckle, around 1.
    """

    retina: float
    choroid: float
    looks: int
    grain: float


@dataclass(frozen=True, eq=False)
class Retina:
    """An eye without findings.

    Args:
        tops: (11, S) the first row of each layer from the nerve fibres to the pigment epithelium.
        bottom: Where the epithelium ends, on Bruch's membrane.
        choroid: Brightness of what lies below it.
        texture: Factor of brightness.
        harmless: What is added to it: reflexes, floaters, the vitreous' skin.
        light: Factor of what is above the background: shadows.
        gain: Factor and offset of the scanner.
    """

    tops: NDArray[np.float64]
    bottom: Curve
    choroid: Plane
    texture: Plane
    harmless: Plane
    light: Plane
    gain: tuple[float, float]

    def render(self, elevation: Curve) -> Plane:
        """Return the picture without its speckle.

        Args:
            elevation: By how many rows the epithelium is lifted off Bruch's membrane, >= 0.
        """
        size = len(self.bottom)
        lift = np.repeat((0, 1), (len(INNER), len(OUTER)))[:, None] * elevation
        membrane = self.bottom - np.minimum(elevation, 0.012 * size)
        edges = (*(self.tops - lift), self.bottom - elevation, membrane, self.bottom)
        above: Plane | float = VITREOUS
        picture = np.full((size, size), VITREOUS)
        # A sum of steps, so that a layer of no thickness leaves no trace.
        brightness = (layer.brightness for layer in (*INNER, *OUTER))
        levels: tuple[Plane | float, ...] = (*brightness, DEPOSIT, BRUCH, self.choroid)
        for edge, below in zip(edges, levels, strict=True):
            picture += below_line(edge, max(1.0, 0.005 * size)) * (below - above)
            above = below
        seen = (picture * self.texture + self.harmless - VITREOUS) * self.light + VITREOUS
        factor, offset = self.gain
        result: Plane = np.clip(factor * seen + offset, 0, 1)
        return result


def draw_patient(generator: np.random.Generator) -> Patient:
    """Return a patient."""
    looks, grain = int(generator.integers(2, 6)), generator.uniform(0.8, 1.4)
    return Patient(generator.uniform(0.29, 0.35), generator.uniform(0.12, 0.24), looks, grain)


def draw_retina(generator: np.random.Generator, patient: Patient, *, size: int, left: bool) -> Retina:
    """Return an eye of a patient.

    Args:
        generator: Of everything that differs between scans.
        patient: Whose eye it is.
        size: Side of the image in pixels.
        left: Whether it is the left eye, with the nose on the left.
    """
    along, fovea = np.arange(size) / size, generator.normal(0.5, 0.05)
    bottom = size * _draw_bottom(generator, along)
    tops = bottom - size * _heights(patient, along - fovea, side=-1 if left else 1)
    inner_limit, texture = tops[0], np.ones((size, size))
    for amplitude, scale in ((0.07, (0.012, 0.07)), (0.06, (0.3, 0.05))):
        texture += amplitude * smooth_noise(generator, size, (scale[0] * size, scale[1] * size))
    harmless = _draw_floaters(generator, size, inner_limit) + _draw_reflexes(generator, inner_limit, fovea * size)
    light = _draw_media(generator, along) * np.ones((size, 1))
    _draw_vessels(generator, harmless, light, inner_limit, fovea * size)
    choroid = _draw_choroid(generator, patient, bottom)
    gain = (generator.uniform(0.85, 1.05), generator.uniform(-0.03, 0.06))
    return Retina(tops, bottom, choroid, texture, harmless, light, gain)


def draw_speckle(generator: np.random.Generator, patient: Patient, size: int) -> Plane:
    """Return speckle (S, S) as it adds to the picture: what interference leaves after averaging, as a logarithm."""
    scale = (max(0.4, 0.0026 * size), patient.grain * max(0.5, 0.004 * size))
    power = np.zeros((size, size))
    for _ in range(2 * patient.looks):
        power += smooth_noise(generator, size, scale) ** 2
    result: Plane = generator.uniform(0.11, 0.15) * np.log(power / (2 * patient.looks) + 1e-3)
    return result


def below_line(edge: Curve, softness: float) -> Plane:
    """Return 0 above a line, 1 below it, and a slope of so many rows between."""
    rows = np.arange(len(edge))[:, None]
    result: Plane = np.clip((rows - edge) / softness + 0.5, 0, 1)
    return result


def _draw_bottom(generator: np.random.Generator, along: Curve) -> Curve:
    """Draw the course of Bruch's membrane: tilted, bent and slightly wavy in every eye, whatever its label."""
    across, size = along - 0.5, len(along)
    bend = generator.uniform(-0.28, 0.05) * across**2 + generator.normal(0, 0.03) * across
    waves = 0.006 * generator.uniform(0.3, 1.6) * smooth_curve(generator, size, 0.11 * size)
    course: Curve = generator.uniform(0.6, 0.68) + bend + waves
    return course


def _heights(patient: Patient, across: Curve, *, side: int) -> NDArray[np.float64]:
    """Return how high each layer begins above Bruch's membrane, (11, S), as shares of the image's side."""
    pit, rim = np.exp(-0.5 * (across / PIT) ** 2), np.exp(-0.5 * ((np.abs(across) - 2.6 * PIT) / PIT) ** 2)
    thickness = []
    for layer in (*INNER, *OUTER):
        swell = 1 + layer.fovea * pit + (0.18 * rim if layer.fovea < 0 else 0)
        thickness.append(layer.thickness * swell * np.ones_like(across))
    # Nerve fibres gather on their way to the disc, which is on the side of the nose.
    thickness[0] *= np.clip(1 + 2.2 * side * across, 0.35, None)
    heights: NDArray[np.float64] = patient.retina * np.cumsum(thickness[::-1], axis=0)[::-1]
    return heights


def _draw_choroid(generator: np.random.Generator, patient: Patient, bottom: Curve) -> Plane:
    """Draw vessels, larger ones deeper, the wavy border of the sclera, and light that fades with depth."""
    size = len(bottom)
    depth = (np.arange(size)[:, None] - bottom) / size
    end = patient.choroid * (1 + 0.08 * smooth_curve(generator, size, 0.08 * size))
    fine, coarse = (smooth_noise(generator, size, (scale * size, 1.5 * scale * size)) for scale in (0.009, 0.02))
    share = np.clip(depth / end, 0, 1)
    lumen = np.clip(0.9 * ((1 - share) * fine + (0.4 + share) * coarse) - 0.1, -0.3, 1)
    vessels = CHOROID * (1 - 0.55 * lumen * np.clip(depth / 0.02, 0, 1))
    sclera = np.clip((depth - end) / 0.02 + 0.5, 0, 1)
    tissue = vessels + sclera * (SCLERA * (1 + 0.1 * fine) - vessels)
    fading: Plane = VITREOUS * 0.8 + (tissue - VITREOUS * 0.8) * np.exp(-np.clip(depth, 0, None) / 0.22)
    return fading


def _draw_media(generator: np.random.Generator, along: Curve) -> Curve:
    """Draw broad shadows of what is cloudy before the retina, and light that falls off to one side."""
    light = 1 - generator.uniform(0, 0.3) * np.abs(along - generator.uniform(0, 1)) ** 2
    for _ in range(int(generator.integers(0, 3))):
        width, depth = generator.uniform(0.03, 0.09), generator.uniform(0.1, 0.35)
        light *= 1 - depth * np.exp(-0.5 * ((along - generator.uniform(0, 1)) / width) ** 2)
    return light


def _draw_vessels(
    generator: np.random.Generator, harmless: Plane, light: Plane, inner_limit: Curve, fovea: float
) -> None:
    """Draw vessels in the nerve fibres and the shadows below them, in place."""
    size = len(inner_limit)
    for _ in range(int(generator.integers(3, 8))):
        column = generator.choice((-1, 1)) * generator.uniform(2.2 * PIT, 0.45) * size + fovea
        width = generator.uniform(0.006, 0.016) * size
        row = inner_limit[int(np.clip(column, 0, size - 1))] + 1.3 * width
        wall = spot(size, (row, column), (1.1 * width, width), edge=0.7)
        harmless[wall.window] += generator.uniform(0.1, 0.25) * wall.weight
        profile = np.exp(-0.5 * ((np.arange(size) - column) / (0.7 * width)) ** 4)
        light *= 1 - generator.uniform(0.25, 0.5) * profile * below_line(inner_limit + 3 * width, 2 * width)


def _draw_reflexes(generator: np.random.Generator, inner_limit: Curve, fovea: float) -> Plane:
    """Draw shine on the inner limiting membrane: in the fovea's middle and where the surface faces the light."""
    size = len(inner_limit)
    down = np.arange(size)[:, None] - inner_limit
    shine = np.zeros(size)
    for _ in range(int(generator.integers(1, 5))):
        centre, width = generator.uniform(0, size), generator.uniform(0.02, 0.08) * size
        shine += generator.uniform(0.1, 0.35) * np.exp(-0.5 * ((np.arange(size) - centre) / width) ** 2)
    surface = shine * np.exp(-0.5 * (down / (0.005 * size)) ** 2)
    middle = generator.uniform(0, 0.5) * np.exp(-0.5 * ((np.arange(size) - fovea) / (0.007 * size)) ** 2)
    result: Plane = surface + middle * np.exp(-0.5 * (down / (0.012 * size)) ** 2)
    return result


def _draw_floaters(generator: np.random.Generator, size: int, inner_limit: Curve) -> Plane:
    """Draw bright dots in the vitreous, and its skin where that has come off the retina."""
    plane = np.zeros((size, size))
    for _ in range(int(generator.integers(0, 5))):
        column, radius = generator.uniform(0, size), generator.uniform(0.004, 0.01) * size
        row = generator.uniform(0.05, 0.9) * inner_limit[int(column)]
        dot = spot(size, (row, column), (radius, radius * generator.uniform(1, 1.8)), edge=0.7)
        plane[dot.window] += generator.uniform(0.2, 0.5) * dot.weight
    if generator.random() < 0.4:
        # It spans the fovea's pit.
        taut = ndimage.gaussian_filter1d(inner_limit, 0.12 * size, mode="nearest")
        skin = taut - size * (generator.uniform(0.07, 0.13) + 0.012 * smooth_curve(generator, size, 0.15 * size))
        faint = np.clip(generator.uniform(0.05, 0.25) * (1 + smooth_curve(generator, size, 0.1 * size)), 0, 0.35)
        plane += faint * np.exp(-0.5 * (offsets(whole(size), (0, 0))[0] - skin) ** 2 / (0.004 * size) ** 2)
    return plane
