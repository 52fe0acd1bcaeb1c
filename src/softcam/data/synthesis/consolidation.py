"""Lung that fills with fluid, as pneumonia does: patchy white areas, one by one, so that each can have its box."""

from __future__ import annotations

import numpy as np

from softcam.data.synthesis.canvas import Plane, Point, ragged_spot, smooth_noise
from softcam.data.synthesis.chest import Chest
from softcam.data.synthesis.opacities import DENSITY

CANDIDATES = 6
"""Places of which the one nearest to the wanted height is taken."""


def draw_consolidations(generator: np.random.Generator, chest: Chest, count: int) -> list[Plane]:
    """Return the density of each consolidation, (S, S); they lie in the lungs, in turn on either side.

    Args:
        generator: Of the finding.
        chest: Where it is.
        count: How many.
    """
    size, first = len(chest.lungs), int(generator.integers(2))
    airy = 1 + 0.22 * smooth_noise(generator, size, 0.02 * size) + 0.16 * smooth_noise(generator, size, 0.007 * size)
    return [_draw_one(generator, chest, (first + number) % 2) * np.clip(airy, 0.25, None) for number in range(count)]


def _draw_one(generator: np.random.Generator, chest: Chest, side: int) -> Plane:
    """Return one on a side: soft spots that run into each other, along the lung."""
    size = len(chest.lungs)
    density, centre = np.zeros((size, size)), _find_place(generator, chest, side)
    length, strength = generator.uniform(0.02, 0.115), generator.uniform(0.85, 1.15) * DENSITY
    for _ in range(int(generator.integers(4, 9))):
        place = centre[0] + length * size * generator.normal(), centre[1] + 0.035 * size * generator.normal()
        patch = ragged_spot(generator, size, place, generator.uniform(0.055, 0.11) * size, edge=0.9)
        soft = strength * generator.uniform(0.6, 1) * patch.weight**2 * (3 - 2 * patch.weight)
        part = density[patch.window]
        part += soft * (1 - part / strength)
    return density


def _find_place(generator: np.random.Generator, chest: Chest, side: int) -> Point:
    """Return a place in the lung, more often in its lower half."""
    rows, columns = np.nonzero(chest.lungs > 0.9)
    beside = (columns < len(chest.lungs) / 2) == (side == 0)
    rows, columns = rows[beside], columns[beside]
    chosen = generator.integers(len(rows), size=CANDIDATES)
    nearest = chosen[np.argmin(np.abs(rows[chosen] / len(chest.lungs) - generator.normal(0.52, 0.12)))]
    return float(rows[nearest]), float(columns[nearest])
