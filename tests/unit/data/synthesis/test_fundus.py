from __future__ import annotations

import numpy as np
import pytest

from softcam.data.synthesis.fundus import FIELD, draw_fundus, draw_patient


@pytest.mark.parametrize("left", [True, False])
def test_the_disc_is_on_the_nasal_side(left: bool) -> None:
    for seed in range(5):
        generator = np.random.default_rng(seed)
        picture = draw_fundus(generator, draw_patient(generator), size=96, left=left).picture
        column = np.unravel_index(picture[..., 2].argmax(), (96, 96))[1]
        assert (column < 40) == left
        assert (column > 56) != left


def test_the_field_of_view_is_a_circle_and_findings_lie_inside() -> None:
    generator = np.random.default_rng(0)
    fundus = draw_fundus(generator, draw_patient(generator), size=128, left=True)
    assert fundus.picture.shape == (128, 128, 3)
    assert (fundus.picture.min(), fundus.picture.max()) >= (0, 0.5)
    assert fundus.picture.max() <= 1
    rows, columns = np.nonzero(fundus.picture.any(2))
    assert np.hypot(rows - 64, columns - 64).max() < (FIELD + 0.05) * 128
    assert not fundus.picture[:4, :4].any()
    assert fundus.picture[fundus.inside].any(1).all()
    assert 0.3 < fundus.inside.mean() < 0.6


def test_patients_differ_and_come_back() -> None:
    first, again, other = (draw_patient(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
