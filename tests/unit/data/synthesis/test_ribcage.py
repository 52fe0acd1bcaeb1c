from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from softcam.data.synthesis.ribcage import APEX, Frame, draw_bones, draw_frame, draw_patient, half_width

FRAME = Frame(200, (0.0, 100.0), 200.0)
PATIENT = draw_patient(np.random.default_rng(0))


def test_a_frame_counts_in_shares_from_the_spine() -> None:
    frame = Frame(100, (10.0, 50.0), 200.0)
    assert frame.down[:3, 0].tolist() == [-0.05, -0.045, -0.04]
    assert frame.across[0, [0, 50, 60]].tolist() == [-0.25, 0, 0.05]


def test_a_step_is_at_least_a_pixel_wide() -> None:
    inside = np.array([-1.0, -0.05, 0, 0.05, 1.0])
    assert np.allclose(FRAME.step(inside, 0.2), [0, 0.15625, 0.5, 0.84375, 1])
    assert np.allclose(FRAME.step(np.array([-0.0026, 0, 0.0026]), 0), [0, 0.5, 1])


def test_an_ellipse_tilts_clockwise() -> None:
    upright, tilted = (FRAME.ellipse((0.5, 0), (0.1, 0.3), 0.01, tilt) > 0.5 for tilt in (0, 0.5))
    assert (upright.any(1).sum(), upright.any(0).sum()) == pytest.approx((40, 120), abs=3)
    rows, columns = np.nonzero(tilted)
    assert np.corrcoef(rows, columns)[0, 1] > 0.5
    assert tilted.sum() == pytest.approx(upright.sum(), rel=0.03)


def test_lines_are_placed_in_shares() -> None:
    rows, columns = np.nonzero(FRAME.lines([([(0.25, -0.4), (0.25, 0.4)], 0.02)]) > 0.5)
    assert (rows.min(), rows.max()) == pytest.approx((48, 51), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((20, 180), abs=2)


def test_the_cage_widens_from_its_apex_downwards() -> None:
    width = half_width(FRAME, PATIENT)[:, 0]
    assert not width[: int(APEX * 200)].any()
    assert (np.diff(width) >= 0).all()
    assert width[-1] == PATIENT.width


def test_ribs_fall_towards_the_sides() -> None:
    bones = draw_bones(np.random.default_rng(0), FRAME, PATIENT)
    near, far = bones[90:130, 78], bones[90:130, 48]
    shifts = [float(np.corrcoef(near[: 40 - shift], far[shift:])[0, 1]) for shift in range(12)]
    assert np.argmax(shifts) >= 4


def test_bones_are_as_dense_as_the_patient_has_them() -> None:
    thin, strong = (
        draw_bones(np.random.default_rng(0), FRAME, dataclasses.replace(PATIENT, bone=bone)) for bone in (0.8, 1.2)
    )
    assert thin.min() >= 0
    assert np.allclose(strong, 1.5 * thin)


def test_patients_and_frames_differ_and_come_back() -> None:
    first, again, other = (draw_patient(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
    here, there = (draw_frame(np.random.default_rng(seed), 64) for seed in (0, 1))
    assert here.origin != there.origin
    assert 0.95 * 64 < here.unit < 1.05 * 64
