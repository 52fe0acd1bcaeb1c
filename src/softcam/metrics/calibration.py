"""One temperature for all logits, fitted on validation images so that probabilities can be believed.

A temperature above 0 changes no order: the most probable class stays the most probable one, and a threshold that moves
with the probabilities decides every image as before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_softmax, logit, softmax

from softcam.metrics.inputs import Array, Values, check_binary, to_numpy
from softcam.metrics.tasks import check_classes

LOWEST, HIGHEST = 0.05, 20.0
"""Between which temperatures are looked for."""


def fit_temperature(logits: Values, targets: Values) -> float:
    """Return the temperature T with which logits / T have the least mean negative log-likelihood.

    In 1 / T the loss is convex, so that its slope has one zero, which is found by bisection within [0.05, 20]. A model
    that is right about every image has none: the lowest temperature is returned. Where no temperature changes
    anything, such as for logits that are all 0, it is 1.

    Args:
        logits: (N, K) finite.
        targets: (N,) class indices for softmax; (N, K) of 0 and 1 for sigmoids, also for one logit, K = 1.

    Returns:
        T in [0.05, 20]: above 1 for a model that is too sure of itself.

    Raises:
        ValueError: If a shape is wrong, a logit is not finite or a target is out of range.

    >>> fit_temperature([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]], [0, 0, 1, 1])  # 3 of 4 right, stated: 98 %
    3.6409...

    Reference: Guo et al. 2017, arXiv 1706.04599, section 4.2.
    """
    scores, truth = _read(logits, targets)

    def slope(inverse: float) -> float:
        return float(np.mean(((_activate(scores * inverse, truth) - _flags(scores, truth)) * scores).sum(1)))

    sharpest, flattest = slope(1 / LOWEST), slope(1 / HIGHEST)
    if sharpest == flattest == 0:
        return 1.0
    if sharpest <= 0:
        return LOWEST
    if flattest >= 0:
        return HIGHEST
    return 1 / float(brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-13, rtol=1e-12))


def negative_log_likelihood(logits: Values, targets: Values, *, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood per image in nats; of several labels, their sum. Lower is better.

    Args:
        logits: As in `fit_temperature`.
        targets: As in `fit_temperature`.
        temperature: What the logits are divided by, above 0.

    Raises:
        ValueError: As `fit_temperature` does, or if `temperature` is not above 0.

    >>> round(negative_log_likelihood([[0.0, 0.0]], [1]), 6)
    0.693147
    """
    scores, truth = _read(logits, targets)
    scaled = scores / check_temperature(temperature)
    if truth.ndim == 2:
        # log(1 + exp(-s)) for the labels that are there and log(1 + exp(s)) for the others.
        return float(np.logaddexp(0, np.where(truth == 1, -scaled, scaled)).sum(1).mean())
    return float(-log_softmax(scaled, axis=1)[np.arange(len(truth)), truth].mean())


def scale_probabilities(logits: Values, *, temperature: float, multi_label: bool = False) -> Array:
    """Return the probabilities of logits / T, in float64.

    Args:
        logits: (N, K) finite.
        temperature: T, above 0.
        multi_label: Sigmoids rather than softmax; also for K = 1.

    Returns:
        (N, K) in [0, 1].

    Raises:
        ValueError: If `temperature` is not finite and above 0.

    >>> scale_probabilities([[2.0, 0.0]], temperature=2.0).round(3).tolist()
    [[0.731, 0.269]]
    """
    scaled = to_numpy(logits).astype(np.float64) / check_temperature(temperature)
    probabilities: Array = expit(scaled) if multi_label or scaled.shape[-1] == 1 else softmax(scaled, axis=-1)
    return probabilities


def scale_threshold(threshold: float, temperature: float) -> float:
    """Return the threshold that decides calibrated probabilities as `threshold` decides those of the raw logits.

    For sigmoids and for the second of two exclusive classes, whose probability is the sigmoid of a logit difference.

    Args:
        threshold: In [0, 1].
        temperature: T, above 0.

    Raises:
        ValueError: If `temperature` is not finite and above 0.

    >>> scale_threshold(0.5, 3.0), round(scale_threshold(0.9, 2.0), 6)
    (0.5, 0.75)
    """
    return float(expit(logit(threshold) / check_temperature(temperature)))


def check_temperature(value: float) -> float:
    """Return a temperature; ValueError unless it is finite and above 0."""
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"Expected `temperature` to be finite and above 0, but got {value}. Fit it on validation.")
    return value


def _read(logits: Values, targets: Values) -> tuple[Array, NDArray[np.intp]]:
    scores, labels = to_numpy(logits).astype(np.float64), to_numpy(targets)
    if scores.ndim != 2 or scores.shape[0] == 0 or scores.shape[1] < (1 if labels.ndim == 2 else 2):
        raise ValueError(
            f"Expected `logits` to be of shape (N, K) with N >= 1, but got {scores.shape}. "
            "For one logit, pass targets (N, 1) of 0 and 1."
        )
    if not np.isfinite(scores).all():
        raise ValueError("Expected `logits` to be finite, but got NaN or infinity. Check the weights of the model.")
    if labels.ndim != 2:
        return scores, check_classes(labels, "targets", scores.shape[1], size=len(scores))
    if labels.shape != scores.shape:
        raise ValueError(f"Expected `targets` to be of shape {scores.shape}, but got {labels.shape}. Match them.")
    columns = [check_binary(column, "targets", size=len(scores)) for column in labels.T]
    return scores, np.stack(columns, axis=1).astype(np.intp)


def _activate(scores: Array, truth: NDArray[np.intp]) -> Array:
    probabilities: Array = expit(scores) if truth.ndim == 2 else softmax(scores, axis=1)
    return probabilities


def _flags(scores: Array, truth: NDArray[np.intp]) -> Array:
    return truth.astype(np.float64) if truth.ndim == 2 else np.eye(scores.shape[1])[truth]
