"""Drawn B-scans of the retina with drusen: deposits that lift the pigment epithelium off Bruch's membrane.

They decide the label; shadows, reflexes, floaters, waves and uneven light are as frequent without them.
"""

from __future__ import annotations

import numpy as np

from softcam.data.synthesis.canvas import Plane
from softcam.data.synthesis.retina import Curve, draw_patient, draw_retina, draw_speckle
from softcam.data.synthesis.scene import Order, Painting, Scene, keep_visible

COUNTS: dict[int, tuple[int, int]] = {0: (0, 0), 1: (2, 0), 2: (3, 1), 3: (4, 2), 4: (5, 4)}
"""Small and large drusen by grade."""

SMALL, LARGE = ((0.02, 0.034), (0.017, 0.025)), ((0.035, 0.07), (0.03, 0.046))
"""Half the width and the height of a druse, each from and to, as shares of the image's side."""


def paint_drusen(order: Order) -> Painting:
    """Return a B-scan, (S, S)."""
    patient, size = draw_patient(order.patient), order.size
    scan, finding, grain = order.moment.spawn(3)
    retina = draw_retina(scan, patient, size=size, left=order.first)
    healthy = retina.render(np.zeros(size))
    diseased = retina.render(order.contrast * draw_elevation(finding, size, order.grade))
    mask = keep_visible(diseased, healthy)
    speckle = draw_speckle(grain, patient, size)
    return Painting(np.clip(diseased + speckle, 0, 1), np.clip(healthy + speckle, 0, 1), mask)


def draw_elevation(generator: np.random.Generator, size: int, grade: int) -> Curve:
    """Return by how many rows drusen lift the epithelium, (S,); where two meet, the higher one counts."""
    elevation, columns = np.zeros(size), np.arange(size)
    for count, (widths, heights) in zip(COUNTS[grade], (SMALL, LARGE), strict=True):
        for _ in range(count):
            centre = float(np.clip(generator.normal(0.5, 0.2), 0.1, 0.9)) * size
            distance = (columns - centre) / (generator.uniform(*widths) * size)
            dome = np.clip(1 - distance**2, 0, 1) ** generator.uniform(0.8, 1.6)
            elevation = np.maximum(elevation, generator.uniform(*heights) * size * dome)
    return elevation


def mark_scale(picture: Plane) -> None:
    """Draw, in place, a scale bar in the lower left corner: two strokes at a right angle."""
    size = len(picture)
    edge, length, width = round(0.03 * size), round(0.08 * size), max(1, round(0.01 * size))
    picture[-edge - width : -edge, edge : edge + length] = 0.9
    picture[-edge - length : -edge, edge : edge + width] = 0.9


DRUSEN = Scene(
    name="oct",
    title="B-scans of the retina with drusen",
    classes=("healthy", "drusen"),
    pair=("eye", ("left", "right")),
    paint=paint_drusen,
    mark=mark_scale,
)
