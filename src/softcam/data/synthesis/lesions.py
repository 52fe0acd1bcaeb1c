"""Drawn fundus photographs with retinal lesions, and masks that know every pixel of them.

Microaneurysms, haemorrhages and exudates decide the label; pigment, pale spots, dust and reflexes are as frequent
without them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softcam.data.manifest import Manifest
from softcam.data.synthesis.canvas import Picture, Point, Stamp, blend, ragged_spot, spot, tint
from softcam.data.synthesis.fundus import Fundus, draw_fundus, draw_patient
from softcam.data.synthesis.scene import Order, Painting, Scene, SynthesisSettings
from softcam.data.synthesis.sets import write_set

LesionSettings = SynthesisSettings
"""The settings of all kinds of images, by the name that they have had for this one."""

COUNTS: dict[int, tuple[int, int, int]] = {0: (0, 0, 0), 1: (3, 1, 0), 2: (5, 1, 1), 3: (7, 3, 1), 4: (10, 4, 2)}
"""Microaneurysms, haemorrhages and clusters of exudates by grade."""


def synthesize_lesions(
    out: str | Path, settings: LesionSettings | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Write fundus photographs with retinal lesions, masks and `manifest.csv`.

    Args:
        out: The folder; new, empty, or begun with the same settings.
        settings: Default: `LesionSettings()`.
        progress: Called with the images that are done and those in all.

    Returns:
        The manifest, with the columns `image`, `label`, `split`, `patient`, `mask` (empty for healthy eyes), `grade`
        and `eye`.

    Raises:
        ManifestError: If the folder holds something else already.
    """
    return write_set(LESIONS, out, settings, progress=progress)


def paint_lesions(order: Order) -> Painting:
    """Return a fundus photograph, (S, S, 3)."""
    patient, size = draw_patient(order.patient), order.size
    fundus = draw_fundus(order.moment, patient, size=size, left=order.first)
    # As a lens would: before the lesions, so that their masks stay exact.
    healthy = ndimage.gaussian_filter(fundus.picture, (0.35 * size / 224,) * 2 + (0,))
    diseased = healthy.copy()
    mask = _draw_lesions(order, diseased, fundus)
    noise = order.moment.normal(0, 0.012, healthy.shape)
    return Painting(_develop(diseased, noise), _develop(healthy, noise), mask)


def mark_corner(picture: Picture) -> None:
    """Draw, in place, an angle in the dark corner above and to the left of the field of view."""
    size = len(picture)
    edge, length, width = round(0.03 * size), round(0.06 * size), max(1, round(0.012 * size))
    picture[edge : edge + width, edge : edge + length] = 0.85
    picture[edge : edge + length, edge : edge + width] = 0.85


LESIONS = Scene(
    name="lesions",
    title="fundus photographs with retinal lesions",
    classes=("healthy", "lesions"),
    pair=("eye", ("left", "right")),
    paint=paint_lesions,
    mark=mark_corner,
)


def _draw_lesions(order: Order, picture: Picture, fundus: Fundus) -> NDArray[np.bool_]:
    """Draw lesions in place and return where they are."""
    mask = np.zeros(picture.shape[:2], dtype=bool)
    generator, size, contrast = order.moment, order.size, order.contrast
    dots, blots, clusters = COUNTS[order.grade]
    for _ in range(dots):
        radius = generator.uniform(0.0065, 0.011) * size
        dot = spot(size, _within(generator, fundus), (radius, radius), edge=0.6)
        tint(picture, (0.62, 0.25, 0.35), _marked(mask, dot).faded(contrast))
    for _ in range(blots):
        radius = generator.uniform(0.014, 0.026) * size
        blot = ragged_spot(generator, size, _within(generator, fundus), radius, edge=0.4)
        tint(picture, (0.55, 0.22, 0.3), _marked(mask, blot).faded(contrast))
    for _ in range(clusters):
        centre = _within(generator, fundus)
        for _ in range(int(generator.integers(5, 12))):
            where = (centre[0] + generator.normal(0, 0.022) * size, centre[1] + generator.normal(0, 0.022) * size)
            exudate = ragged_spot(generator, size, where, generator.uniform(0.005, 0.012) * size, edge=0.3)
            blend(picture, (0.98, 0.9, 0.45), _marked(mask, exudate).faded(0.85 * contrast))
    return mask


def _marked(mask: NDArray[np.bool_], stamp: Stamp) -> Stamp:
    """Add a stamp to the mask, and return it."""
    mask[stamp.window] |= stamp.weight > 0
    return stamp


def _within(generator: np.random.Generator, fundus: Fundus) -> Point:
    rows, columns = np.nonzero(fundus.inside)
    chosen = int(generator.integers(len(rows)))
    return float(rows[chosen]), float(columns[chosen])


def _develop(picture: Picture, noise: Picture) -> Picture:
    lit = picture.max(2, keepdims=True) > 0.02
    grainy: Picture = np.clip(picture + noise * lit, 0, 1)
    return grainy
