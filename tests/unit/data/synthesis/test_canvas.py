from __future__ import annotations

import numpy as np
import pytest

from softcam.data.synthesis.canvas import (
    Stamp,
    blend,
    lines,
    offsets,
    ragged_spot,
    smooth_curve,
    smooth_noise,
    spot,
    tint,
    whole,
)


def spread(stamp: Stamp, size: int) -> np.ndarray:
    plane = np.zeros((size, size))
    plane[stamp.window] = stamp.weight
    return plane


def test_a_spot_is_one_inside_and_slopes_to_its_edge() -> None:
    plane = spread(spot(11, (5, 5), (4, 4), edge=0.5), 11)
    assert plane[5].tolist() == [0, 0, 0.5, 1, 1, 1, 1, 1, 0.5, 0, 0]
    assert np.array_equal(plane, plane.T)


def test_a_spot_has_two_radii_and_an_angle() -> None:
    upright = spread(spot(21, (10, 10), (8, 3), edge=1.0), 21) > 0
    assert (upright.any(1).sum(), upright.any(0).sum()) == (15, 5)
    turned = spread(spot(21, (10, 10), (8, 3), edge=1.0, angle=np.pi / 2), 21) > 0
    assert np.array_equal(turned, upright.T)


@pytest.mark.parametrize("centre", [(0, 0), (10, 3), (-1, 5)])
def test_what_lies_beyond_the_border_is_cut_off(centre: tuple[float, float]) -> None:
    cut = spread(spot(11, centre, (3, 3), edge=0.5), 11)
    full = spread(spot(31, (centre[0] + 10, centre[1] + 10), (3, 3), edge=0.5), 31)
    assert np.allclose(cut, full[10:21, 10:21])


def test_a_spot_outside_of_the_plane_leaves_nothing() -> None:
    assert spot(11, (40, 40), (3, 3), edge=0.5).weight.size == 0


def test_a_ragged_spot_stays_within_its_bounds() -> None:
    for seed in range(20):
        plane = spread(ragged_spot(np.random.default_rng(seed), 41, (20, 20), 8, edge=0.3), 41)
        distance = np.hypot(*offsets(whole(41), (20, 20)))
        assert not plane[distance > 1.4 * 8].any()
        assert (plane[distance < 0.6 * 0.7 * 8] == 1).all()


def test_a_colour_is_laid_over_by_weight() -> None:
    picture = np.full((2, 2, 3), 0.5)
    blend(picture, (1, 0, 0.5), Stamp((slice(0, 1), slice(0, 2)), np.array([[1.0, 0.5]])))
    assert picture[0].tolist() == [[1, 0, 0.5], [0.75, 0.25, 0.5]]
    assert (picture[1] == 0.5).all()


def test_a_tint_multiplies_by_weight() -> None:
    picture = np.full((2, 2, 3), 0.5)
    tint(picture, (0.5, 1, 0), Stamp((slice(1, 2), slice(0, 2)), np.array([[1.0, 0.5]])).faded(0.5))
    assert np.allclose(picture[1], [[0.375, 0.5, 0.25], [0.4375, 0.5, 0.375]])
    assert (picture[0] == 0.5).all()


def test_noise_is_standardised_and_smooth() -> None:
    fine, coarse = (smooth_noise(np.random.default_rng(0), 64, scale) for scale in (1, 8))
    for noise in (fine, coarse):
        assert noise.mean() == pytest.approx(0, abs=1e-12)
        assert noise.std() == pytest.approx(1)
    assert np.abs(np.diff(coarse)).mean() < np.abs(np.diff(fine)).mean() / 4


def test_noise_has_a_direction() -> None:
    noise = smooth_noise(np.random.default_rng(0), 64, (1, 8))
    assert np.abs(np.diff(noise, axis=1)).mean() < np.abs(np.diff(noise, axis=0)).mean() / 4


def test_a_curve_is_standardised_and_smooth() -> None:
    fine, coarse = (smooth_curve(np.random.default_rng(0), 128, scale) for scale in (1, 8))
    for curve in (fine, coarse):
        assert curve.shape == (128,)
        assert curve.mean() == pytest.approx(0, abs=1e-12)
        assert curve.std() == pytest.approx(1)
    assert np.abs(np.diff(coarse)).mean() < np.abs(np.diff(fine)).mean() / 4


def test_lines_cover_their_width() -> None:
    plane = lines(32, [([(16, 4), (16, 28)], 4.0)])
    assert plane[:, 16].sum() == pytest.approx(4, abs=0.6)
    assert plane[16, 16] == 1
    assert not plane[:10].any()
