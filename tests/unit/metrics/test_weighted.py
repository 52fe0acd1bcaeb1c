"""Weights are copies: a weighted metric equals the same metric on the images repeated that often."""

from __future__ import annotations

import numpy as np
import pytest

from softcam.metrics import weighted
from softcam.metrics.inputs import Array

RNG = np.random.default_rng(3)
SCORES = RNG.integers(6, size=25) / 5
POSITIVE = RNG.random(25) < 0.4
WEIGHTS = RNG.integers(4, size=(7, 25)).astype(float)
NAN = float("nan")


def slow_auroc(scores: Array, positive: Array) -> float:
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive == 1] for n in scores[positive == 0]]
    return sum(pairs) / len(pairs)


def slow_average_precision(scores: Array, positive: Array) -> float:
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        found = (called & (positive == 1)).sum()
        area += (found / (positive == 1).sum() - recall) * found / called.sum()
        recall = found / (positive == 1).sum()
    return area


@pytest.mark.parametrize(
    ("fast", "slow"),
    [(weighted.auroc, slow_auroc), (weighted.average_precision, slow_average_precision)],
)
def test_ranking_metrics_equal_repeated_images(fast: weighted.Ranking, slow: object) -> None:
    values = fast(SCORES, POSITIVE, WEIGHTS)
    for value, row in zip(values, WEIGHTS.astype(int), strict=True):
        expected = slow(np.repeat(SCORES, row), np.repeat(POSITIVE, row))  # type: ignore[operator]
        assert value == pytest.approx(expected, abs=1e-14)


def test_average_precision_survives_a_copy_without_the_highest_score() -> None:
    scores, positive = np.array([0.9, 0.5, 0.1]), np.array([True, False, True])
    assert weighted.average_precision(scores, positive, np.array([[0.0, 1.0, 1.0]])) == pytest.approx([0.5])


def test_ranking_metrics_are_nan_where_undefined() -> None:
    scores, positive = np.array([0.9, 0.1]), np.array([True, False])
    weights = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(weighted.auroc(scores, positive, weights), [NAN, NAN])
    np.testing.assert_array_equal(weighted.average_precision(scores, positive, weights), [1.0, NAN])


def test_cumulate_keeps_one_point_for_each_distinct_score() -> None:
    true, false = weighted.cumulate(
        np.array([0.1, 0.9, 0.9]), np.array([True, True, False]), np.array([[1.0, 2.0, 3.0]])
    )
    assert true.tolist() == [[2.0, 3.0]]
    assert false.tolist() == [[3.0, 3.0]]


def test_mean_and_divide() -> None:
    weights = np.array([[1.0, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(weighted.mean(np.array([1.0, 5.0]), weights), [4.0, NAN])
    np.testing.assert_array_equal(weighted.divide(np.array([1.0, 0.0]), np.array([0.0, 2.0])), [NAN, 0.0])


def test_bins_are_closed_below_and_one_is_in_the_last() -> None:
    assert weighted.bin_index(np.array([0.0, 0.249, 0.25, 0.5, 0.99, 1.0]), 4).tolist() == [0, 0, 1, 2, 3, 3]


def test_calibration_error_by_hand() -> None:
    confidence, correct = np.array([0.1, 0.3, 0.9]), np.array([False, True, True])
    # Two bins: (0.1 + 0.3) / 2 against 1 / 2, and 0.9 against 1.
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 5.0]])
    assert weighted.calibration_error(confidence, correct, weights, 2) == pytest.approx([2 / 3 * 0.3 + 0.1 / 3, 0.1])
    assert weighted.calibration_error(confidence, correct, weights[:1], 4) == pytest.approx([(0.1 + 0.7 + 0.1) / 3])


def test_tabulate_has_the_true_class_by_row() -> None:
    table = weighted.tabulate(np.array([1, 1, 0]), np.array([0, 1, 1]), np.array([[2.0, 3.0, 5.0]]), 2)
    assert table.tolist() == [[[0.0, 2.0], [5.0, 3.0]]]


def test_kappa_by_hand() -> None:
    # Observed disagreement 1 / 4; by chance (2 / 4)(1 / 4) + (2 / 4)(3 / 4) = 1 / 2.
    assert weighted.quadratic_kappa(np.array([[[1.0, 1.0], [0.0, 2.0]]])) == pytest.approx([0.5])
    np.testing.assert_array_equal(weighted.quadratic_kappa(np.array([[[3.0, 0.0], [0.0, 0.0]]])), [NAN])


def test_kappa_punishes_by_the_square_of_the_distance() -> None:
    near = np.eye(3)[None] * 4 + np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    far = np.eye(3)[None] * 4 + np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    # Disagreement 2 * 1 against 2 * 4, of 14 images; chance from margins (5, 5, 4) and (5, 4, 5).
    assert weighted.quadratic_kappa(near) == pytest.approx([1 - 2 * 14 / (2 * (25 + 20 + 4 * 20))])
    assert weighted.quadratic_kappa(far) == pytest.approx([1 - 8 * 14 / (2 * (20 + 20 + 4 * 25))])
