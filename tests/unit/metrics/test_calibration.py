from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from softcam.metrics import fit_temperature, negative_log_likelihood, scale_probabilities, scale_threshold
from softcam.metrics.calibration import HIGHEST, LOWEST


def slow_loss(logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    """The mean of minus the log-likelihood, one image and one class at a time, as in the paper."""
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if isinstance(target, list):
            for value, flag in zip(row, target, strict=True):
                total += math.log1p(math.exp((-value if flag else value) / temperature))
        else:
            powers = [math.exp(value / temperature) for value in row]
            total -= math.log(powers[target] / sum(powers))
    return total / len(logits)


def draw(kind: str, seed: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Images whose true temperature is `scale`."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(size=(300, 1 if kind == "one" else 4)) * 2
    if kind == "exclusive":
        odds = np.exp(honest) / np.exp(honest).sum(1, keepdims=True)
        targets = np.array([generator.choice(4, p=row) for row in odds])
    else:
        targets = (generator.random(honest.shape) < 1 / (1 + np.exp(-honest))).astype(int)
    return honest * scale, targets


@pytest.mark.parametrize("kind", ["exclusive", "several", "one"])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_temperature_has_the_least_loss_of_a_slow_search(kind: str, scale: float) -> None:
    logits, targets = draw(kind, 3, scale)
    found = fit_temperature(logits, targets)
    grid = np.exp(np.linspace(math.log(LOWEST), math.log(HIGHEST), 400))
    losses = [slow_loss(logits, targets, value) for value in grid]
    best = grid[int(np.argmin(losses))]
    assert found == pytest.approx(best, rel=0.016)  # one step of the grid
    assert slow_loss(logits, targets, found) <= min(losses)
    assert slow_loss(logits, targets, found * 1.001) > slow_loss(logits, targets, found)
    assert slow_loss(logits, targets, found / 1.001) > slow_loss(logits, targets, found)
    assert found == pytest.approx(scale, rel=0.5)


@pytest.mark.parametrize("kind", ["exclusive", "several", "one"])
def test_temperature_follows_the_scale_of_the_logits(kind: str) -> None:
    logits, targets = draw(kind, 5, 1.0)
    assert fit_temperature(3 * logits, targets) == pytest.approx(3 * fit_temperature(logits, targets), rel=1e-9)
    assert fit_temperature(torch.from_numpy(logits), torch.from_numpy(targets)) == fit_temperature(logits, targets)


@pytest.mark.parametrize("kind", ["exclusive", "several", "one"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
def test_loss_is_that_of_a_slow_implementation(kind: str, temperature: float) -> None:
    logits, targets = draw(kind, 1, 1.0)
    found = negative_log_likelihood(logits, targets, temperature=temperature)
    assert found == pytest.approx(slow_loss(logits, targets, temperature), rel=1e-12)


def test_exact_temperature() -> None:
    # 3 of 4 right at a logit difference of 4: calibrated if sigmoid(4 / T) = 3 / 4.
    assert fit_temperature([[4, 0], [4, 0], [0, 4], [4, 0]], [0, 0, 1, 1]) == pytest.approx(4 / math.log(3), rel=1e-9)
    assert fit_temperature([[4.0], [4.0], [-4.0], [4.0]], [[1], [1], [0], [0]]) == pytest.approx(4 / math.log(3))


def test_what_has_no_minimum_stays_within_bounds() -> None:
    assert fit_temperature([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == LOWEST
    assert fit_temperature([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == HIGHEST
    assert fit_temperature([[0.0, 0.0], [0.0, 0.0]], [1, 0]) == 1.0
    assert np.isfinite(fit_temperature([[1e4, -1e4], [1e4, -1e4]], [0, 1]))


def test_probabilities_of_scaled_logits() -> None:
    logits = np.array([[1.0, -2.0, 0.5]], np.float32)
    expected = torch.from_numpy(logits).double().div(2.5)
    assert scale_probabilities(logits, temperature=2.5) == pytest.approx(expected.softmax(1).numpy(), abs=1e-15)
    several = scale_probabilities(logits, temperature=2.5, multi_label=True)
    assert several == pytest.approx(expected.sigmoid().numpy(), abs=1e-15)
    assert scale_probabilities([[3.0]], temperature=1.0) == pytest.approx(1 / (1 + math.exp(-3)))
    assert scale_probabilities(logits, temperature=1.0).sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("threshold", [1e-6, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_threshold_moves_with_the_probabilities(threshold: float, temperature: float) -> None:
    logits = np.linspace(-20, 20, 801)[:, None]
    moved = scale_threshold(threshold, temperature)
    before = scale_probabilities(logits, temperature=1.0) >= threshold
    assert (before == (scale_probabilities(logits, temperature=temperature) >= moved)).all()
    assert 0 < moved < 1
    assert scale_threshold(moved, 1 / temperature) == pytest.approx(threshold, rel=1e-9)


def test_ends_of_the_thresholds_stay() -> None:
    assert (scale_threshold(0.0, 2.0), scale_threshold(1.0, 2.0)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        ([[1.0]], [0], r"`logits` to be of shape .*\(1, 1\)"),
        ([1.0, 2.0], [0, 1], r"`logits` to be of shape"),
        (np.zeros((0, 2)), [], r"`logits` to be of shape"),
        ([[np.nan, 1.0]], [0], "`logits` to be finite"),
        ([[0.0, 1.0]], [2], r"`targets` to be class indices in \[0, 2\)"),
        ([[0.0, 1.0]], [0, 1], r"`targets` to be of shape \(1,\)"),
        ([[0.0, 1.0]], [[0, 1, 1]], r"`targets` to be of shape \(1, 2\)"),
        ([[0.0, 1.0]], [[0, 2]], "`targets` to be 0 or 1"),
    ],
)
def test_refuses_what_is_no_test_set(logits: object, targets: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, targets)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_refuses_temperatures_that_are_none(temperature: float) -> None:
    for call in (scale_threshold, lambda _, t: scale_probabilities([[0.0, 1.0]], temperature=t)):
        with pytest.raises(ValueError, match="`temperature` to be finite and above 0"):
            call(0.5, temperature)
