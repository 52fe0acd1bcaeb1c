from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from softcam.data.synthesis.chest import Chest
from softcam.data.synthesis.opacities import DENSITY, PATCHES, draw_opacity, mark_side

SIZE = 128


def lungs() -> Chest:
    """Return two lungs and nothing else."""
    field = np.zeros((SIZE, SIZE))
    field[20:100, 10:54] = field[20:100, 74:118] = 1
    return Chest(np.full((SIZE, SIZE), 0.2), field, (5.0, 0.5))


def test_grades_have_one_to_three_opacities() -> None:
    assert [count for count, _ in PATCHES.values()] == [0, 1, 1, 2, 3]
    for grade, (count, _) in PATCHES.items():
        found = [ndimage.label(draw_opacity(np.random.default_rng(seed), lungs(), grade) > 0)[1] for seed in range(12)]
        assert max(found) == count


def test_opacities_are_soft_and_denser_than_a_rib() -> None:
    for seed in range(6):
        density = draw_opacity(np.random.default_rng(seed), lungs(), 2)
        assert 0.5 * DENSITY < density.max() < 2 * DENSITY
        assert np.abs(np.diff(density, axis=0)).max() < 0.3 * density.max()


def test_their_middles_are_in_the_lungs() -> None:
    for seed in range(12):
        density = draw_opacity(np.random.default_rng(seed), lungs(), 1)
        rows, columns = ndimage.center_of_mass(density > 0)
        assert lungs().lungs[max(0, round(rows) - 3) : round(rows) + 4, round(columns) - 3 : round(columns) + 4].any()


@pytest.mark.parametrize("size", [64, 224, 1024])
def test_the_mark_is_a_letter_in_the_corner_of_the_right_side(size: int) -> None:
    picture = np.full((size, size), 0.1)
    mark_side(picture)
    rows, columns = np.nonzero(picture > 0.4)
    assert 0.03 * size < min(rows.min(), columns.min()) <= max(rows.max(), columns.max()) < 0.13 * size
    assert 0.85 < picture.max() < 0.96
