from __future__ import annotations

import numpy as np
import pytest

from softcam.data.synthesis.abnormal import FINDINGS, LARGE, add_density, draw_tubes, enlarge_heart
from softcam.data.synthesis.chest import Chest, draw_chest
from softcam.data.synthesis.ribcage import draw_patient

SIZE = 192


def draw(seed: int, *, large: bool = False) -> Chest:
    generator = np.random.default_rng(seed)
    patient = draw_patient(generator)
    return draw_chest(generator, enlarge_heart(np.random.default_rng(9), patient) if large else patient, SIZE)


def test_a_large_heart_hides_more_lung() -> None:
    for seed in range(3):
        assert draw(seed, large=True).lungs.sum() < 0.97 * draw(seed).lungs.sum()
    patient = draw_patient(np.random.default_rng(0))
    assert LARGE[0] <= enlarge_heart(np.random.default_rng(0), patient).heart / patient.heart <= LARGE[1]


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_can_be_seen_and_differ(name: str) -> None:
    for seed in range(3):
        chest, generator = draw(seed), np.random.default_rng(seed)
        first, second = (FINDINGS[name](generator, chest) for _ in range(2))
        assert not np.array_equal(first, second)
        changed = add_density(chest, first).render(0 * first) - chest.render(0 * first)
        assert changed.max() > 0.04
        assert 0.0005 < (np.abs(changed) > 0.02).mean() < 0.3


def test_scars_are_fine_and_in_the_lungs_below() -> None:
    for seed in range(3):
        chest = draw(seed)
        scars = FINDINGS["scars"](np.random.default_rng(seed), chest)
        assert not scars[chest.lungs == 0].any()
        assert scars[SIZE // 2 :].sum() > 2 * scars[: SIZE // 2].sum()


def test_an_effusion_is_at_the_base_of_one_lung() -> None:
    sides = set()
    for seed in range(6):
        chest = draw(seed)
        rows, columns = np.nonzero(FINDINGS["effusion"](np.random.default_rng(seed), chest) > 0.1)
        assert rows.min() > 0.45 * SIZE
        assert len({bool(column < SIZE / 2) for column in columns}) == 1
        sides.add(bool(columns[0] < SIZE / 2))
    assert sides == {True, False}


def test_a_pacemaker_is_below_the_left_collarbone_with_a_lead_to_the_heart() -> None:
    density = FINDINGS["pacemaker"](np.random.default_rng(0), draw(0))
    rows, columns = np.nonzero(density > 0.4)
    assert 0.15 * SIZE < rows.mean() < 0.3 * SIZE
    assert 0.7 * SIZE < columns.mean() < 0.8 * SIZE
    assert np.nonzero(density > 0.05)[0].max() > 0.6 * SIZE


def test_tubes_come_from_above_near_the_middle() -> None:
    for seed in range(6):
        density = draw_tubes(np.random.default_rng(seed), draw(0))
        rows, columns = np.nonzero(density > 0.05)
        assert rows.min() == 0
        assert 0.2 * SIZE < rows.max() < 0.5 * SIZE
        assert np.abs(columns / SIZE - 0.5).max() < 0.16
