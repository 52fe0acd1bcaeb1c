"""Drawn radiographs of the chest with opacities: soft patches in which lung lets less through.

They decide the label; nipples, electrodes, wires, crossing ribs and exposure are as frequent without them.
"""

from __future__ import annotations

import numpy as np

from softcam.data.synthesis.canvas import Plane, lines, ragged_spot, smooth_noise
from softcam.data.synthesis.chest import Chest, draw_chest, draw_grain
from softcam.data.synthesis.ribcage import draw_patient
from softcam.data.synthesis.scene import Order, Painting, Scene, keep_visible

PATCHES: dict[int, tuple[int, tuple[float, float]]] = {
    0: (0, (0.0, 0.0)),
    1: (1, (0.05, 0.075)),
    2: (1, (0.08, 0.11)),
    3: (2, (0.07, 0.1)),
    4: (3, (0.07, 0.11)),
}
"""Opacities by grade, and their radius, from and to, as a share of the image's side."""

DENSITY = 0.3
"""Of an opacity's middle, where it is easy to see; a rib has about a third of it."""


def paint_opacities(order: Order) -> Painting:
    """Return a radiograph, (S, S)."""
    scan, finding, grain = order.moment.spawn(3)
    chest = draw_chest(scan, draw_patient(order.patient), order.size)
    healthy = chest.render(np.zeros((order.size, order.size)))
    diseased = chest.render(order.contrast * draw_opacity(finding, chest, order.grade))
    mask = keep_visible(diseased, healthy)
    noise = draw_grain(grain, healthy)
    return Painting(np.clip(diseased + noise, 0, 1), np.clip(healthy + noise, 0, 1), mask)


def draw_opacity(generator: np.random.Generator, chest: Chest, grade: int) -> Plane:
    """Return the density of opacities, (S, S), with their middles in the lungs; where two meet, the denser counts."""
    size = len(chest.lungs)
    density, patchy = np.zeros((size, size)), 1 + 0.25 * smooth_noise(generator, size, 0.02 * size)
    rows, columns = np.nonzero(chest.lungs > 0.9)
    count, (smallest, largest) = PATCHES[grade]
    for _ in range(count):
        chosen = int(generator.integers(len(rows)))
        centre = (float(rows[chosen]), float(columns[chosen]))
        patch = ragged_spot(generator, size, centre, generator.uniform(smallest, largest) * size, edge=0.85)
        soft = generator.uniform(0.8, 1.1) * DENSITY * patch.weight**2 * (3 - 2 * patch.weight)
        density[patch.window] = np.maximum(density[patch.window], soft)
    result: Plane = density * np.clip(patchy, 0.3, None)
    return result


def mark_side(picture: Plane) -> None:
    """Draw, in place, the letter R in the upper corner of the patient's right side, which is the image's left."""
    size = len(picture)
    letter = [[(1, 0), (0, 0), (0, 0.45), (0.12, 0.6), (0.38, 0.6), (0.5, 0.45), (0.5, 0)], [(0.5, 0.3), (1, 0.62)]]
    strokes = [[((0.04 + 0.07 * row) * size, (0.04 + 0.07 * column) * size) for row, column in path] for path in letter]
    weight = lines(size, [(path, 0.012 * size) for path in strokes])
    picture += weight * (0.95 - picture)


OPACITIES = Scene(
    name="radiograph",
    title="radiographs of the chest with opacities",
    classes=("healthy", "opacities"),
    pair=("visit", ("first", "second")),
    paint=paint_opacities,
    mark=mark_side,
)
