from __future__ import annotations

import itertools

import numpy as np
import pytest

from softcam.data.synthesis.chest import Chest
from softcam.data.synthesis.consolidation import draw_consolidations
from softcam.data.synthesis.opacities import DENSITY

SIZE = 128


def lungs() -> Chest:
    """Return two lungs and nothing else."""
    field = np.zeros((SIZE, SIZE))
    field[20:100, 10:54] = field[20:100, 74:118] = 1
    return Chest(np.full((SIZE, SIZE), 0.2), field, (5.0, 0.5))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_there_are_as_many_as_asked_for_in_turn_on_either_side(count: int) -> None:
    for seed in range(6):
        drawn = draw_consolidations(np.random.default_rng(seed), lungs(), count)
        assert len(drawn) == count
        halves = [plane[:, : SIZE // 2].sum() > plane[:, SIZE // 2 :].sum() for plane in drawn]
        assert all(first != second for first, second in itertools.pairwise(halves))
    assert draw_consolidations(np.random.default_rng(0), lungs(), 0) == []


def test_both_sides_come_first() -> None:
    first = [draw_consolidations(np.random.default_rng(seed), lungs(), 1)[0] for seed in range(12)]
    assert {bool(plane[:, : SIZE // 2].sum() > plane[:, SIZE // 2 :].sum()) for plane in first} == {True, False}


def test_they_are_as_dense_as_opacities_and_patchy() -> None:
    for seed in range(6):
        density = draw_consolidations(np.random.default_rng(seed), lungs(), 1)[0]
        assert 0.5 * DENSITY < density.max() < 2.5 * DENSITY
        assert density.min() == 0
        inside = density[density > 0.3 * density.max()]
        assert inside.std() > 0.15 * inside.mean()


def test_they_are_on_average_higher_than_wide_and_below_the_middle() -> None:
    shapes, rows = [], []
    for seed in range(40):
        seen = draw_consolidations(np.random.default_rng(seed), lungs(), 1)[0] > 0.02
        shapes.append((seen.any(1).sum(), seen.any(0).sum()))
        rows.append(np.nonzero(seen)[0].mean())
    height, width = np.mean(shapes, axis=0) / SIZE
    assert 0.2 < width < height < 0.45
    assert 0.45 < np.mean(rows) / SIZE < 0.62
