from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch

from softcam.metrics.classification import (
    auroc,
    average_precision,
    calibration_bins,
    classification_report,
    confusion_matrix,
    per_class_report,
    precision_recall_points,
    quadratic_weighted_kappa,
    roc_points,
)
from softcam.metrics.thresholds import choose_threshold

KEYS = {
    "auroc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "brier",
    "ece",
}
# Positive scores by hand: at 0.5 two true and one false positive, two true negatives and one false negative.
SCORES = np.array([0.9, 0.6, 0.3, 0.7, 0.2, 0.1])
TARGETS = np.array([1, 1, 1, 0, 0, 0])
BINARY = np.stack([1 - SCORES, SCORES], 1)


def values(probabilities: object, targets: object, **arguments: object) -> dict[str, float]:
    report = classification_report(probabilities, targets, resamples=2, **arguments)  # type: ignore[arg-type]
    return {name: interval.value for name, interval in report.items()}


def test_binary_report_by_hand() -> None:
    got = values(BINARY, TARGETS)
    expected = {
        "auroc": 7 / 9,
        "average_precision": (1 + 2 / 3 + 3 / 4) / 3,
        "accuracy": 4 / 6,
        "balanced_accuracy": 2 / 3,
        "sensitivity": 2 / 3,
        "specificity": 2 / 3,
        "precision": 2 / 3,
        "f1": 2 / 3,
        "brier": (0.01 + 0.16 + 0.49 + 0.49 + 0.04 + 0.01) / 6,
        "ece": (0.1 + 0.4 + 0.7 + 0.7 + 0.2 + 0.1) / 6,
    }
    assert set(got) == KEYS
    assert got == pytest.approx(expected)


def test_threshold_changes_what_depends_on_it_only() -> None:
    default, low = values(BINARY, TARGETS), values(BINARY, TARGETS, threshold=0.3)
    assert low["sensitivity"] == 1.0
    assert low["specificity"] == pytest.approx(2 / 3)
    assert low["precision"] == 0.75
    assert low["f1"] == pytest.approx(6 / 7)
    assert low["accuracy"] == pytest.approx(5 / 6)
    assert low["balanced_accuracy"] == pytest.approx(5 / 6)
    for name in ("auroc", "average_precision", "brier", "ece"):
        assert low[name] == default[name]


def test_multiclass_report_is_macro() -> None:
    rng = np.random.default_rng(1)
    probabilities, targets = rng.dirichlet(np.ones(3), 40), rng.integers(3, size=40)
    got, parts = values(probabilities, targets), per_class_report(probabilities, targets, resamples=2)
    for name in ("auroc", "average_precision", "sensitivity", "specificity", "precision", "f1"):
        assert got[name] == pytest.approx(np.mean([part[name].value for part in parts]))
    predicted = probabilities.argmax(1)
    assert got["accuracy"] == pytest.approx((predicted == targets).mean())
    assert got["balanced_accuracy"] == pytest.approx(np.mean([(predicted[targets == k] == k).mean() for k in range(3)]))
    assert got["brier"] == pytest.approx(((probabilities - np.eye(3)[targets]) ** 2).sum(1).mean() / 2)


def test_per_class_report_is_one_against_the_rest() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7]])
    part = per_class_report(probabilities, [0, 1, 2, 2], resamples=2)[2]
    assert part["auroc"].value == 1.0
    assert part["sensitivity"].value == 0.5
    assert part["specificity"].value == 1.0
    assert part["precision"].value == 1.0
    assert part["f1"].value == pytest.approx(2 / 3)
    assert part["average_precision"].value == 1.0


def test_two_classes_have_one_part_and_several_labels_one_each() -> None:
    assert len(per_class_report(BINARY, TARGETS, resamples=2)) == 1
    labels = np.stack([TARGETS, 1 - TARGETS], 1)
    parts = per_class_report(BINARY[:, ::-1], labels, threshold=[0.3, 0.5], resamples=2)
    assert [part["sensitivity"].value for part in parts] == [1.0, pytest.approx(2 / 3)]


def test_several_labels_report_is_macro_over_labels() -> None:
    labels = np.stack([TARGETS, 1 - TARGETS], 1)
    got = values(BINARY[:, ::-1], labels, threshold=[0.3, 0.5])
    assert got["sensitivity"] == pytest.approx((1 + 2 / 3) / 2)
    assert got["specificity"] == pytest.approx(2 / 3)
    assert got["balanced_accuracy"] == pytest.approx((1 + 2 / 3 + 4 / 3) / 4)
    assert got["accuracy"] == pytest.approx((5 / 6 + 4 / 6) / 2)
    assert got["auroc"] == pytest.approx(7 / 9)


def test_undefined_is_nan_and_nothing_else_is() -> None:
    got = values([[0.9, 0.1], [0.8, 0.2]], [0, 0])
    assert {name for name, value in got.items() if math.isnan(value)} == {
        "auroc",
        "average_precision",
        "sensitivity",
        "balanced_accuracy",
        "precision",
        "f1",
    }


def test_intervals_hold_the_value_and_count_images() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=120)
    scores = 1 / (1 + np.exp(-(targets - 0.5 + rng.normal(size=120))))
    report = classification_report(np.stack([1 - scores, scores], 1), targets, resamples=500)
    for name in KEYS - {"ece"}:
        interval = report[name]
        assert interval.low < interval.value < interval.high, name
        assert interval.n == 120


def test_seed_resamples_and_groups_change_the_interval_only() -> None:
    base = classification_report(BINARY, TARGETS, resamples=50, seed=0)["brier"]
    assert classification_report(BINARY, TARGETS, resamples=50, seed=0)["brier"] == base
    others = [
        classification_report(BINARY, TARGETS, resamples=50, seed=1)["brier"],
        classification_report(BINARY, TARGETS, resamples=51, seed=0)["brier"],
        classification_report(BINARY, TARGETS, groups=["a", "a", "a", "b", "b", "b"], resamples=50, seed=0)["brier"],
    ]
    for other in others:
        assert other.value == base.value
        assert (other.low, other.high) != (base.low, base.high)


def test_points_of_a_roc_curve_by_hand() -> None:
    points = roc_points([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    assert points.fpr.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert points.tpr.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert points.thresholds.tolist() == [math.inf, 0.9, 0.5, 0.1]
    assert points.fpr.dtype == torch.float64


def test_points_of_a_precision_recall_curve_by_hand() -> None:
    points = precision_recall_points([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    assert points.recall.tolist() == [0.5, 1.0, 1.0]
    assert points.precision.tolist() == pytest.approx([1.0, 2 / 3, 0.5])
    assert points.thresholds.tolist() == [0.9, 0.5, 0.1]


def test_areas_are_those_under_the_points() -> None:
    rng = np.random.default_rng(5)
    scores, targets = rng.integers(9, size=60), rng.integers(2, size=60)
    fpr, tpr, _ = roc_points(scores, targets)
    assert auroc(scores, targets) == pytest.approx(torch.trapezoid(tpr, fpr).item())
    recall, precision, _ = precision_recall_points(scores, targets)
    steps = recall.diff(prepend=torch.zeros(1, dtype=torch.float64))
    assert average_precision(scores, targets) == pytest.approx((steps * precision).sum().item())


def test_one_class_gives_nan_areas_and_rates() -> None:
    assert math.isnan(auroc([0.1, 0.2], [1, 1]))
    assert math.isnan(average_precision([0.1, 0.2], [0, 0]))
    assert average_precision([0.1, 0.2], [1, 1]) == 1.0
    assert roc_points([0.1, 0.2], [1, 1]).fpr.isnan().all()
    assert roc_points([0.1, 0.2], [0, 0]).tpr[1:].isnan().all()
    assert precision_recall_points([0.1, 0.2], [0, 0]).recall.isnan().all()


@pytest.mark.parametrize(
    ("scores", "targets", "threshold"),
    [
        ([0.1, 0.4, 0.6, 0.8], [0, 0, 1, 1], 0.5),
        ([0.1, 0.4, 0.6, 0.8], [0, 1, 0, 1], 0.25),  # 0.4 and 0.8 are equally good: the more sensitive one
        ([0.8, 0.6, 0.4, 0.1], [0, 0, 1, 1], 0.1),  # worse than chance: everything is positive
        ([5.0, 5.0, -1.0], [1, 0, 0], 2.0),
    ],
)
def test_threshold_by_hand(scores: list[float], targets: list[int], threshold: float) -> None:
    assert choose_threshold(scores, targets) == pytest.approx(threshold)


def test_threshold_maximizes_youden() -> None:
    rng = np.random.default_rng(2)
    targets = rng.integers(2, size=80)
    scores = targets + rng.normal(size=80)

    def youden(threshold: float) -> float:
        called = scores >= threshold
        return float(called[targets == 1].mean() - called[targets == 0].mean())

    middles = [(a + b) / 2 for a, b in pairwise(sorted(scores))]
    assert youden(choose_threshold(scores, targets)) == pytest.approx(max(map(youden, middles)))


@pytest.mark.parametrize("label", [0, 1])
def test_threshold_needs_both_classes(label: int) -> None:
    with pytest.raises(ValueError, match="Expected `targets` to hold both 0 and 1"):
        choose_threshold([0.1, 0.2], [label, label])


def test_confusion_matrix_has_the_true_class_by_row() -> None:
    matrix = confusion_matrix([0, 2, 2], torch.tensor([0, 1, 2]), num_classes=4)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_confusion_matrix_refuses_other_indices() -> None:
    with pytest.raises(ValueError, match=r"Expected `predicted` to be class indices in \[0, 2\)"):
        confusion_matrix([2], [0], num_classes=2)
    with pytest.raises(ValueError, match=r"Expected `predicted` to be of shape \(1,\)"):
        confusion_matrix([1, 0], [0], num_classes=2)


def test_kappa_by_hand_with_interval() -> None:
    kappa = quadratic_weighted_kappa([0, 1, 1, 1], [0, 0, 1, 1], num_classes=2, resamples=200)
    assert kappa.value == pytest.approx(0.5)
    assert kappa.low < 0.5 < kappa.high
    assert kappa.n == 4


def test_kappa_arguments_matter() -> None:
    grades, truth = [0, 1, 2, 1, 2, 0], [0, 2, 2, 1, 0, 1]
    base = quadratic_weighted_kappa(grades, truth, num_classes=3, resamples=40)
    assert quadratic_weighted_kappa(grades, truth, num_classes=3, resamples=40, seed=1) != base
    assert quadratic_weighted_kappa(grades, truth, num_classes=3, resamples=41) != base
    assert quadratic_weighted_kappa(grades, truth, num_classes=3, resamples=40, groups=[0, 0, 1, 1, 2, 2]) != base
    assert math.isnan(quadratic_weighted_kappa([1, 1], [1, 1], num_classes=3, resamples=5).value)


def test_calibration_bins_by_hand() -> None:
    bins = calibration_bins([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.0, 1.0]], [0, 1, 1, 0], bins=2)
    assert [asdict(b) for b in bins] == [
        {"confidence": pytest.approx(0.2), "accuracy": 0.5, "count": 2},
        {"confidence": pytest.approx(0.95), "accuracy": 0.5, "count": 2},
    ]
    fine = calibration_bins([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.0, 1.0]], [0, 1, 1, 0])
    assert [b.count for b in fine] == [1, 1, 1, 1]


def test_calibration_bins_use_the_largest_probability_of_more_classes_and_pool_labels() -> None:
    (single,) = calibration_bins([[0.2, 0.6, 0.2]], [1], bins=1)
    assert (single.confidence, single.accuracy, single.count) == (pytest.approx(0.6), 1.0, 1)
    (pooled,) = calibration_bins([[0.2, 0.6, 0.1]], [[0, 1, 1]], bins=1)
    assert (pooled.confidence, pooled.accuracy, pooled.count) == (pytest.approx(0.3), pytest.approx(2 / 3), 3)


def test_calibration_bins_give_the_reported_error() -> None:
    rng = np.random.default_rng(4)
    scores, targets = rng.random(50), rng.integers(2, size=50)
    probabilities = np.stack([1 - scores, scores], 1)
    bins = calibration_bins(probabilities, targets)
    expected = sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / 50
    assert values(probabilities, targets)["ece"] == pytest.approx(expected)


def test_calibration_bins_refuse_none() -> None:
    with pytest.raises(ValueError, match="Expected `bins` to be at least 1, but got 0"):
        calibration_bins(BINARY, TARGETS, bins=0)
