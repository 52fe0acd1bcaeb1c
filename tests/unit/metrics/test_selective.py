from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from softcam.metrics import decision_confidence, risk_coverage, scale_probabilities, scale_threshold, selective_risk


def slow_area(confidence: list[float], correct: list[int]) -> float:
    """Each image is the last one that is answered; those as sure as it are answered too."""
    total = 0.0
    for value in confidence:
        answered = [right for other, right in zip(confidence, correct, strict=True) if other >= value]
        total += 1 - sum(answered) / len(answered)
    return total / len(confidence)


def test_curve_by_hand_with_ties() -> None:
    curve = risk_coverage([3.0, 2.0, 2.0, 1.0, 0.0], [1, 0, 1, 0, 1])
    assert curve.confidence.tolist() == [3.0, 2.0, 1.0, 0.0]
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert curve.risk.tolist() == pytest.approx([0.0, 1 / 3, 0.5, 0.4])


@pytest.mark.parametrize("digits", [1, 6])
def test_area_is_that_of_a_slow_implementation(digits: int) -> None:
    generator = np.random.default_rng(1)
    confidence = generator.random(60).round(digits)
    correct = (generator.random(60) < confidence).astype(int)
    found = selective_risk(torch.from_numpy(confidence), correct, resamples=50)
    assert found.value == pytest.approx(slow_area(confidence.tolist(), correct.tolist()), rel=1e-12)
    assert found.low < found.value < found.high
    curve = risk_coverage(confidence, correct)
    assert curve.risk[-1] == pytest.approx(1 - correct.mean())
    steps = np.diff(curve.coverage.numpy(), prepend=0)
    assert found.value == pytest.approx(float(steps @ curve.risk.numpy()))


def test_area_of_patients_seeds_and_nothing_to_order() -> None:
    correct = np.array([1, 0] * 10)
    assert selective_risk(np.zeros(20), correct, resamples=20).value == 0.5
    confidence = np.arange(20.0)
    groups = np.arange(20) // 5
    own = selective_risk(confidence, correct, resamples=200, seed=1)
    assert selective_risk(confidence, correct, resamples=200, seed=1) == own
    assert selective_risk(confidence, correct, resamples=200, seed=2)[1:3] != own[1:3]
    assert selective_risk(confidence, correct, groups=groups, resamples=200, seed=1)[1:3] != own[1:3]
    # A perfect order: all errors come last.
    assert selective_risk([4, 3, 2, 1], [1, 1, 1, 0], resamples=5).value == pytest.approx(1 / 16)


def test_confidence_is_the_distance_from_the_decision() -> None:
    odds = np.array([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    assert decision_confidence(odds).tolist() == pytest.approx([math.log(7 / 3), math.log(1.5), math.log(9)])
    assert decision_confidence(odds, 0.5) == pytest.approx(decision_confidence(odds))
    moved = decision_confidence(odds, 0.3)
    assert moved[0] == pytest.approx(0, abs=1e-12)
    assert moved[1] == pytest.approx(abs(math.log(4 / 6) - math.log(3 / 7)))
    assert decision_confidence([[0.5, 0.3, 0.2]]).tolist() == [0.5]
    several = decision_confidence([[0.9, 0.4, 0.1]], [0.5, 0.5, 0.5])
    assert several.tolist() == pytest.approx([math.log(1.5)])
    assert decision_confidence([[0.9]], [0.5]).tolist() == pytest.approx([math.log(9)])
    assert np.isfinite(decision_confidence([[1.0, 0.0], [0.0, 1.0]])).all()


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_order_of_two_classes_does_not_depend_on_the_temperature(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(size=(40, 2)) * 3
    raw = decision_confidence(scale_probabilities(logits, temperature=1), 0.3)
    new = decision_confidence(scale_probabilities(logits, temperature=temperature), scale_threshold(0.3, temperature))
    assert new == pytest.approx(raw / temperature, rel=1e-9)


def test_refuses_what_is_no_curve() -> None:
    with pytest.raises(ValueError, match="`confidence` to be finite"):
        risk_coverage([math.nan], [1])
    with pytest.raises(ValueError, match="`correct` to be 0 or 1"):
        risk_coverage([0.5], [2])
    with pytest.raises(ValueError, match=r"`correct` to be of shape \(1,\)"):
        selective_risk([0.5], [1, 1])


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_the_end_leaves_the_confidence_finite(threshold: float) -> None:
    found = decision_confidence([[0.6, 0.4], [0.2, 0.8]], threshold)
    assert np.isfinite(found).all()
    assert (found > 30).all()
    assert (found[1] > found[0]) == (threshold == 0)
