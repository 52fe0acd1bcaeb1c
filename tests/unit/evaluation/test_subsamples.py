from __future__ import annotations

import numpy as np
import pytest

from softcam.evaluation.subsamples import draw_stratified


def counts(strata: np.ndarray, count: int, seed: int = 0) -> list[int]:
    return np.bincount(strata[draw_stratified(strata, count, seed=seed)], minlength=3).tolist()


def test_every_stratum_has_its_share() -> None:
    strata = np.array([0] * 60 + [1] * 30 + [2] * 10)
    assert counts(strata, 10) == [6, 3, 1]
    assert counts(strata, 11) == [7, 3, 1]


def test_a_rare_stratum_is_not_lost_and_the_total_is_kept() -> None:
    strata = np.array([0] * 98 + [1] + [2])
    assert counts(strata, 10) == [8, 1, 1]
    assert sum(counts(strata, 2)) == 2


def test_positions_are_increasing_unique_and_seeded() -> None:
    strata = np.tile([0, 1, 2], 30)
    drawn = draw_stratified(strata, 20, seed=1)
    assert np.all(np.diff(drawn) > 0)
    assert np.array_equal(drawn, draw_stratified(strata, 20, seed=1))
    assert not np.array_equal(drawn, draw_stratified(strata, 20, seed=2))


@pytest.mark.parametrize("count", [3, 4])
def test_all_if_there_are_no_more(count: int) -> None:
    assert draw_stratified(np.array([1, 0, 1]), count, seed=0).tolist() == [0, 1, 2]


def test_none() -> None:
    assert len(draw_stratified(np.array([1, 0, 1]), 0, seed=0)) == 0
