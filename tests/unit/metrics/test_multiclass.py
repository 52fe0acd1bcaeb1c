from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from softcam.metrics import macro_noninferiority, noninferiority

GENERATOR = np.random.default_rng(0)
TARGETS = GENERATOR.integers(0, 3, 200)


def score(noise: float) -> np.ndarray:
    logits = np.eye(3)[TARGETS] + noise * GENERATOR.normal(size=(200, 3))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_the_difference_is_that_of_the_macro_aurocs() -> None:
    new, old = score(0.8), score(0.6)
    expected = np.mean(
        [roc_auc_score(k == TARGETS, new[:, k]) - roc_auc_score(k == TARGETS, old[:, k]) for k in range(3)]
    )
    found = macro_noninferiority(TARGETS, new, old, resamples=500)
    assert found.difference == pytest.approx(expected, abs=1e-12)
    assert found.low < found.difference
    assert not found.passed


def test_the_same_scores_are_not_inferior() -> None:
    new = score(0.8)
    found = macro_noninferiority(TARGETS, new, new, resamples=100)
    assert (found.difference, found.low, found.passed, found.n) == (0.0, 0.0, True, 200)


def test_two_classes_agree_with_delong() -> None:
    targets = (TARGETS > 0).astype(int)
    a, b = (1 / (1 + np.exp(-(targets + noise * GENERATOR.normal(size=200)))) for noise in (0.8, 0.7))
    ours = macro_noninferiority(targets, np.stack([1 - a, a], 1), np.stack([1 - b, b], 1), resamples=4000)
    theirs = noninferiority(targets, a, b)
    assert ours.difference == pytest.approx(theirs.difference, abs=1e-12)
    assert ours.low == pytest.approx(theirs.low, abs=0.01)


def test_patients_widen_the_interval() -> None:
    new, old = score(0.9), score(0.6)
    repeat = np.repeat(np.arange(200), 4)
    apart = macro_noninferiority(TARGETS[repeat], new[repeat], old[repeat], resamples=500)
    together = macro_noninferiority(TARGETS[repeat], new[repeat], old[repeat], groups=repeat, resamples=500)
    assert together.low < apart.low


def test_a_class_without_images_leaves_it_undefined() -> None:
    new = score(0.8)
    found = macro_noninferiority(np.zeros(200, dtype=int), new, new, resamples=10)
    assert np.isnan(found.difference)
    assert not found.passed


@pytest.mark.parametrize(("margin", "columns"), [(0.0, 3), (0.02, 2)])
def test_what_does_not_fit_is_refused(margin: float, columns: int) -> None:
    with pytest.raises(ValueError, match="Expected"):
        macro_noninferiority(TARGETS, score(0.8), score(0.8)[:, :columns], margin=margin)


def test_independent_labels_are_compared_one_by_one() -> None:
    flags = GENERATOR.integers(0, 2, (200, 3))
    new, old = (1 / (1 + np.exp(-(flags + noise * GENERATOR.normal(size=(200, 3))))) for noise in (0.9, 0.6))
    expected = np.mean(
        [roc_auc_score(flags[:, k], new[:, k]) - roc_auc_score(flags[:, k], old[:, k]) for k in range(3)]
    )
    found = macro_noninferiority(flags, new, old, resamples=500)
    assert found.difference == pytest.approx(expected, abs=1e-12)
    assert found.low < found.difference
