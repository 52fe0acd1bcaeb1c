from __future__ import annotations

import numpy as np

from softcam.data.synthesis.drusen import COUNTS, draw_elevation, paint_drusen
from softcam.data.synthesis.retina import INNER, draw_patient, draw_retina
from softcam.data.synthesis.scene import Order

SIZE = 128


def generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    return np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))


def test_drusen_are_domes_of_a_limited_height() -> None:
    for seed in range(10):
        elevation = draw_elevation(np.random.default_rng(seed), SIZE, 4)
        assert 0.02 * SIZE < elevation.max() <= 0.046 * SIZE
        assert elevation.min() == 0
        assert not elevation[: int(0.02 * SIZE)].any()
    assert not draw_elevation(np.random.default_rng(0), SIZE, 0).any()


def test_grades_have_more_and_larger_drusen() -> None:
    assert COUNTS[0] == (0, 0)
    for lower, higher in zip(range(4), range(1, 5), strict=True):
        assert sum(COUNTS[lower]) < sum(COUNTS[higher])
        assert COUNTS[lower][1] <= COUNTS[higher][1]


def test_the_mask_lies_between_the_outer_nuclei_and_the_choroid_where_the_epithelium_is_lifted() -> None:
    for seed in range(4):
        mask = paint_drusen(Order(SIZE, 4, 1.0, True, *generators(seed))).mask
        patient, moment = generators(seed)
        scan, finding, _ = moment.spawn(3)
        retina = draw_retina(scan, draw_patient(patient), size=SIZE, left=True)
        elevation = draw_elevation(finding, SIZE, 4)
        assert not mask[:, elevation == 0].any()
        assert mask[:, elevation > 1].any(0).all()
        rows, columns = np.nonzero(mask)
        assert (rows >= retina.tops[len(INNER) - 1][columns] - 1).all()
        assert (rows <= retina.bottom[columns] + 1).all()


def test_the_finding_has_no_part_in_the_speckle() -> None:
    painting = paint_drusen(Order(SIZE, 3, 1.0, False, *generators(0)))
    assert (painting.picture[~painting.mask] == painting.healthy[~painting.mask]).all()
    assert (painting.picture[painting.mask] != painting.healthy[painting.mask]).mean() > 0.95
