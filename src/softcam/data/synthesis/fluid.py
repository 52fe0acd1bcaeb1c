"""Drawn B-scans with fluid: cysts in a swollen retina (diabetic macular oedema), or new vessels below the retina.

New vessels (choroidal neovascularization) lift the pigment epithelium; above them lies a bright lump of what they leak,
and fluid lifts the retina. What is harmless in a healthy scan is as frequent here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softcam.data.synthesis.canvas import Plane, Point, smooth_curve, smooth_noise, spot
from softcam.data.synthesis.drusen import draw_elevation
from softcam.data.synthesis.retina import INNER, OUTER, Curve, Retina, below_line
from softcam.data.synthesis.scene import keep_visible

FLUID, LUMP, VESSELS, LOST, SWOLLEN, EXUDATE = 0.07, 0.64, 0.36, 0.36, 0.34, 0.9
"""Brightness of fluid, leakage, new vessels, photoreceptors that are gone, swollen tissue, and exudates."""

INNER_NUCLEAR, OUTER_NUCLEAR, LIMIT, EPITHELIUM = 3, 5, 6, len(INNER) + len(OUTER) - 1
"""Numbers of layers, from the inside of the eye outwards."""

SWELLING = (1.0, 1.0, 1.0, 1.0, 0.68, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0)
"""By how much of a swelling each layer is raised: the nuclear layers take it up."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What changes a healthy retina.

    Args:
        elevation: By how many rows the epithelium is lifted off Bruch's membrane, (S,).
        raised: By how many rows each layer lies higher, without the elevation, (11, S).
        fills: What is laid over, one after the other: its weights, (S, S) in [0, 1], and its brightness.
        marked: The mask, (S, S); None where every visible change is the finding.
    """

    elevation: Curve
    raised: NDArray[np.float64]
    fills: tuple[tuple[Plane, Plane | float], ...] = ()
    marked: NDArray[np.bool_] | None = None

    def render(self, retina: Retina) -> tuple[Plane, NDArray[np.bool_]]:
        """Return the picture without its speckle, and where the finding is."""
        factor, offset = retina.gain
        # What lies on the retina's surface, and its shadow, rise with it.
        harmless, light = (_lift(plane, self.raised[0]) for plane in (retina.harmless, retina.light))
        changed = dataclasses.replace(retina, tops=retina.tops - self.raised, harmless=harmless, light=light)
        picture = changed.render(self.elevation)
        for weight, level in self.fills:
            picture += weight * (factor * level + offset - picture)
        if self.marked is not None:
            return picture, self.marked
        return picture, keep_visible(picture, retina.render(np.zeros_like(self.elevation)))


def draw_normal(generator: np.random.Generator, retina: Retina, grade: int, strength: float) -> Finding:
    """Return no finding; the arguments are those of the others."""
    del generator, grade, strength
    return Finding(np.zeros_like(retina.bottom), np.zeros_like(retina.tops))


def draw_drusen(generator: np.random.Generator, retina: Retina, grade: int, strength: float) -> Finding:
    """Return drusen of a grade, 1 to 4."""
    elevation = draw_elevation(generator, len(retina.bottom), grade)
    return Finding(strength * elevation, np.zeros_like(retina.tops))


def draw_oedema(generator: np.random.Generator, retina: Retina, grade: int, strength: float) -> Finding:
    """Return a swollen retina with cysts side by side in its nuclear layers, exudates, sometimes fluid below it.

    Args:
        generator: Of the finding.
        retina: Where it is.
        grade: 1 to 4: by how much the retina swells.
        strength: Of the swelling and of the contrast of its cysts, in (0, 1].
    """
    size, vigour = len(retina.bottom), 0.35 + 0.65 * strength
    centre = size * generator.normal(0.5, 0.05)
    bump = _bell(size, centre, generator.uniform(0.13, 0.22))
    height = size * (0.07 + 0.02 * grade) * generator.uniform(0.85, 1.15) * vigour
    raised = height * np.asarray(SWELLING)[:, None] * bump
    pool = np.zeros(size)
    if generator.random() < 0.35:
        pool = vigour * _draw_dome(generator, size, centre, ((0.06, 0.12), (0.018, 0.035)))
        raised[:EPITHELIUM] += pool
    tops = retina.tops - raised
    cysts, exudates = _draw_cysts(generator, tops, bump), _draw_exudates(generator, tops, bump)
    below = between(retina.tops[EPITHELIUM] - pool, retina.tops[EPITHELIUM])
    tissue = between(tops[INNER_NUCLEAR], tops[LIMIT]) * np.clip(1.6 * bump - 0.3, 0, 0.75)
    fills = ((tissue, SWOLLEN), (vigour * cysts, FLUID), (below, FLUID), (vigour * exudates, EXUDATE))
    return Finding(np.zeros(size), raised, fills, np.maximum(cysts, below) >= 0.5)


def draw_neovascularization(generator: np.random.Generator, retina: Retina, grade: int, strength: float) -> Finding:
    """Return new vessels below the epithelium, a lump and fluid above it, sometimes cysts.

    Args:
        generator: Of the finding.
        retina: Where it is.
        grade: 1 to 4: how large it is.
        strength: Of its height, in (0, 1].
    """
    size, scale = len(retina.bottom), (0.7 + 0.15 * grade) * (0.35 + 0.65 * strength)
    rough = np.clip(1 + 0.16 * smooth_curve(generator, size, 0.018 * size), 0.5, 1.6)
    centre = size * generator.normal(0.5, 0.06)
    aside = centre + size * generator.normal(0, 0.04)
    elevation = scale * rough * _draw_dome(generator, size, centre, ((0.12, 0.23), (0.035, 0.065)))
    lump = scale * rough * _draw_dome(generator, size, aside, ((0.05, 0.1), (0.02, 0.045)))
    pool = scale * _draw_dome(generator, size, aside, ((0.12, 0.22), (0.01, 0.04)))
    lift, floor = np.maximum(lump, pool), retina.tops[EPITHELIUM] - elevation
    raised = np.zeros_like(retina.tops)
    raised[:EPITHELIUM] += lift
    raised[: len(INNER)] = _drape(lift + elevation, retina.tops)
    fluid, solid = between(floor - lift, floor - lump), between(floor - lump, floor)
    under = between(retina.bottom - elevation, retina.bottom - 0.008 * size)
    lost = between(retina.tops[LIMIT] - lift - elevation, floor - lift) * np.clip(2.5 * lump / lump.max(), 0, 0.85)
    cysts = np.zeros((size, size))
    if generator.random() < 0.4:
        cysts = _draw_cysts(generator, retina.tops - raised, _bell(size, aside, 0.07))
    patchy = smooth_noise(generator, size, (0.008 * size, 0.02 * size))
    leaked, vessels = (np.clip(level + 0.1 * patchy, 0, 1) for level in (LUMP, VESSELS))
    fills = ((lost, LOST), (fluid, FLUID), (0.9 * solid, leaked), (0.9 * under, vessels), (0.9 * cysts, FLUID))
    return Finding(elevation, raised, fills, np.max((fluid, solid, under, cysts), 0) >= 0.5)


DRAWN: Mapping[str, Callable[[np.random.Generator, Retina, int, float], Finding]] = {
    "CNV": draw_neovascularization,
    "DME": draw_oedema,
    "DRUSEN": draw_drusen,
    "NORMAL": draw_normal,
}
"""Name of a class -> how it is drawn, given the random numbers, the retina, a grade and a strength."""


def between(top: Curve, bottom: Curve) -> Plane:
    """Return 1 between two lines, 0 elsewhere, (S, S), with a slope of a row or so; nothing where they meet."""
    softness = max(1.0, 0.004 * len(top))
    result: Plane = np.clip(below_line(top, softness) - below_line(bottom, softness), 0, 1)
    return result


def _draw_cysts(generator: np.random.Generator, tops: NDArray[np.float64], bump: Curve) -> Plane:
    """Return cysts, (S, S) in [0, 1]: small ones in the inner nuclear layer, tall ones in the outer one."""
    size = tops.shape[1]
    plane = np.zeros((size, size))
    for layer, widths, share in ((INNER_NUCLEAR, (0.009, 0.02), 0.7), (OUTER_NUCLEAR, (0.014, 0.036), 0.92)):
        for centre, radii in _place_cysts(generator, (tops[layer], tops[layer + 1]), bump, widths):
            if generator.random() < share and min(radii) >= 1.5:
                cyst = spot(size, centre, radii, edge=min(1.0, 2.5 / min(radii)), angle=generator.normal(0, 0.12))
                plane[cyst.window] = np.maximum(plane[cyst.window], cyst.weight)
    return plane


def _place_cysts(
    generator: np.random.Generator, lines: tuple[Curve, Curve], bump: Curve, widths: tuple[float, float]
) -> Iterator[tuple[Point, Point]]:
    """Yield centre and radii of cysts side by side between two lines, with thin walls, where it is swollen."""
    size = len(bump)
    swollen = np.nonzero(bump > 0.45)[0]
    column, end = float(swollen[0]), float(swollen[-1])
    while column < end:
        width = generator.uniform(*widths) * size
        at = int(min(column + width, size - 1))
        top, bottom = lines[0][at], lines[1][at]
        height = 0.5 * (bottom - top) * generator.uniform(0.6, 0.95) * bump[at] ** 0.5
        centre = 0.5 * (top + bottom) + 0.1 * (bottom - top) * generator.normal()
        yield (centre, column + width), (height, min(width, 1.4 * height))
        column += 2.0 * width + 0.004 * size * generator.uniform(0.8, 2)


def _draw_exudates(generator: np.random.Generator, tops: NDArray[np.float64], bump: Curve) -> Plane:
    """Return bright dots, (S, S) in [0, 1], around the outer plexiform layer."""
    size = len(bump)
    plane, swollen = np.zeros((size, size)), np.nonzero(bump > 0.3)[0]
    for _ in range(int(generator.integers(2, 9))):
        column, radius = int(generator.choice(swollen)), generator.uniform(0.004, 0.008) * size
        row = tops[OUTER_NUCLEAR, column] + 0.015 * size * generator.normal()
        dot = spot(size, (row, column), (max(1.2, radius), max(1.2, 1.3 * radius)), edge=0.7)
        plane[dot.window] = np.maximum(plane[dot.window], dot.weight)
    return plane


def _draw_dome(
    generator: np.random.Generator, size: int, centre: float, ranges: tuple[tuple[float, float], tuple[float, float]]
) -> Curve:
    """Return rows, (S,): a dome of half a width and a height, each from and to, as shares of the image's side."""
    half, height = (size * generator.uniform(*limits) for limits in ranges)
    distance = (np.arange(size) - centre) / half
    dome: Curve = height * np.clip(1 - distance**2, 0, 1) ** generator.uniform(0.6, 1.2)
    return dome


def _bell(size: int, centre: float, width: float) -> Curve:
    bell: Curve = np.exp(-0.5 * ((np.arange(size) - centre) / (width * size)) ** 2)
    return bell


def _drape(rows: Curve, tops: NDArray[np.float64]) -> Curve:
    """Return by how many rows the inner layers rise over what lies below them: more gently than that."""
    gentle = ndimage.gaussian_filter1d(rows, 0.05 * len(rows), mode="nearest")
    room = 0.75 * (tops[LIMIT] - tops[OUTER_NUCLEAR])
    draped: Curve = ndimage.gaussian_filter1d(np.maximum(gentle, rows - room), 0.008 * len(rows), mode="nearest")
    return draped


def _lift(plane: Plane, rows: Curve) -> Plane:
    """Return a plane whose columns are moved up by whole rows."""
    size = len(rows)
    source = np.clip(np.arange(size)[:, None] + np.round(rows).astype(int), 0, size - 1)
    lifted: Plane = np.take_along_axis(plane, source, axis=0)
    return lifted
