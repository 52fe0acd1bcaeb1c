from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from softcam.metrics import (
    conformal_quantile,
    coverage,
    expected_coverage,
    least_images,
    nonconformity,
    prediction_sets,
    set_sizes,
    true_scores,
)
from softcam.metrics.conformal import SCORES, exact_interval


def draw(size: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(size, classes)) * 1.5
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return odds, np.array([generator.choice(classes, p=row) for row in odds])


def slow_score(row: list[float], label: int, score: str) -> float:
    """One class of one image, as in the papers."""
    if score == "lac":
        return 1 - row[label]
    return min(1.0, math.fsum(value for value in row if value >= row[label]))


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_those_of_a_slow_implementation(score: str) -> None:
    odds, targets = draw(50, classes=6)
    odds[0] = [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]  # ties
    odds[1] = [1, 0, 0, 0, 0, 0]
    expected = np.array([[slow_score(row, label, score) for label in range(6)] for row in odds.tolist()])
    assert nonconformity(odds, score=score) == pytest.approx(expected, abs=1e-15)  # type: ignore[arg-type]
    own = true_scores(torch.from_numpy(odds), targets, score=score)  # type: ignore[arg-type]
    assert own == pytest.approx(expected[np.arange(50), targets], abs=1e-15)


def test_scores_of_many_classes_take_little_memory() -> None:
    odds = np.full((200, 2000), 1 / 2000)
    assert nonconformity(odds, score="aps") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("n", "alpha", "rank"), [(9, 0.1, 9), (10, 0.1, 10), (19, 0.1, 18), (99, 0.05, 95), (3, 0.25, 3), (1000, 0.1, 901)]
)
def test_quantile_has_the_correction_for_few_images(n: int, alpha: float, rank: int) -> None:
    scores = np.random.default_rng(n).permutation(np.arange(1, n + 1) / n)
    assert conformal_quantile(scores, alpha=alpha) == rank / n


@pytest.mark.parametrize(("alpha", "least"), [(0.1, 9), (0.05, 19), (0.25, 3), (0.3, 3), (0.5, 1), (0.01, 99)])
def test_too_few_images_for_an_alpha(alpha: float, least: int) -> None:
    assert least_images(alpha) == least
    conformal_quantile(np.zeros(least), alpha=alpha)
    if least > 1:
        with pytest.raises(
            ValueError, match=rf"at least {least} images for an alpha of {alpha:g}, but got {least - 1}"
        ):
            conformal_quantile(np.zeros(least - 1), alpha=alpha)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_coverage_is_what_was_asked_for(score: str, alpha: float) -> None:
    found = []
    for seed in range(60):
        odds, targets = draw(299, seed=seed)
        quantile = conformal_quantile(true_scores(odds[:99], targets[:99], score=score), alpha=alpha)  # type: ignore[arg-type]
        sets = prediction_sets(odds[99:], quantile=quantile, score=score)  # type: ignore[arg-type]
        assert sets.sum(1).max() <= 4
        found.append(coverage(sets, targets[99:]).value)
    error = 3 * np.std(found) / math.sqrt(60)
    assert np.mean(found) >= 1 - alpha - error
    assert np.mean(found) <= 1 - alpha + 0.01 + error  # 1 / (n + 1) at most, for scores without ties


@pytest.mark.parametrize("score", SCORES)
def test_sets_hold_what_scores_at_most_the_quantile(score: str) -> None:
    odds, _ = draw(40)
    scores = nonconformity(odds, score=score)  # type: ignore[arg-type]
    quantile = float(scores[3, 2])
    sets = prediction_sets(odds, quantile=quantile, score=score)  # type: ignore[arg-type]
    assert sets[3, 2]
    assert (sets == (scores <= quantile)).all()
    assert prediction_sets(odds, quantile=1.0, score=score).all()  # type: ignore[arg-type]


def test_interval_is_exact_for_images_and_a_bootstrap_for_patients() -> None:
    sets = np.array([[True, False]] * 18 + [[False, True]] * 2)
    targets = np.zeros(20, int)
    found = coverage(sets, targets)
    test = stats.binomtest(18, 20).proportion_ci(method="exact")
    assert found == pytest.approx((0.9, test.low, test.high, 20))
    assert coverage(sets, targets, groups=np.arange(20)) == found
    clustered = coverage(sets, targets, groups=np.arange(20) // 4, resamples=500, seed=1)
    assert (clustered.value, clustered.n) == (found.value, 20)
    assert clustered[1:3] != found[1:3]
    assert coverage(sets, targets, groups=np.arange(20) // 4, resamples=2, seed=1) != clustered
    assert coverage(sets, targets, groups=np.arange(20) // 4, resamples=2, seed=3) != clustered
    assert exact_interval(0, 5).low == 0.0
    assert exact_interval(5, 5).high == 1.0
    assert exact_interval(3, 5, confidence=0.5).low > exact_interval(3, 5).low


def test_expected_coverage_is_that_of_simulated_scores() -> None:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(3000):
        quantile = conformal_quantile(generator.random(50), alpha=0.2)
        found.append((generator.random(80) <= quantile).mean())
    low, high = expected_coverage(50, alpha=0.2, total=80)
    assert np.mean([low <= value <= high for value in found]) >= 0.94
    narrow = expected_coverage(50, alpha=0.2, total=80, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high
    with pytest.raises(ValueError, match="`n` to be at least 4"):
        expected_coverage(3, alpha=0.2, total=80)


def test_set_sizes_by_hand() -> None:
    found = set_sizes(torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0]]))
    assert found == (pytest.approx(1.6), 0.2, 0.2, 0.6, 5)
    assert set_sizes(torch.tensor([[2, 0], [0, 0]])).mean == 0.5, "whatever is not 0 is in the set, once"


def test_refuses_what_has_no_sets() -> None:
    for bad in ([[0.5]], [[0.5, 1.1]], [0.5, 0.5], [[0.5, math.nan]]):
        with pytest.raises(ValueError, match=r"`probabilities` to be \(N, K\) in \[0, 1\] with K >= 2"):
            nonconformity(bad)
    with pytest.raises(ValueError, match="`score` to be one of lac, aps, but got 'raps'"):
        nonconformity([[0.5, 0.5]], score="raps")  # type: ignore[arg-type]
    for alpha in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"`alpha` to lie in \(0, 1\)"):
            conformal_quantile([0.1], alpha=alpha)
    with pytest.raises(ValueError, match=r"`targets` to be class indices in \[0, 2\)"):
        coverage([[True, False]], [2])
    with pytest.raises(ValueError, match=r"`sets` to be \(N, K\)"):
        coverage([True, False], [0, 1])
