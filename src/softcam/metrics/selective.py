"""Selective prediction: how often a model is wrong if it may leave the images to others of which it is least sure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from torch import Tensor

from softcam.metrics import weighted
from softcam.metrics.inputs import Array, Values, check_binary, check_groups, check_vector, to_numpy
from softcam.metrics.statistics import Interval, bootstrap_statistics


class RiskCoverage(NamedTuple):
    """Error among the images that are answered, against how many are, each (T,) float64 for T distinct confidences.

    Args:
        coverage: Share of the images that are answered, in (0, 1], rising to 1.
        risk: Share of these that are wrong, in [0, 1].
        confidence: The image is answered if its confidence is at least this.
    """

    coverage: Tensor
    risk: Tensor
    confidence: Tensor


def risk_coverage(confidence: Values, correct: Values) -> RiskCoverage:
    """Return the curve of the error as images are answered in the order of falling confidence.

    Images of the same confidence are answered together.

    Args:
        confidence: (N,) finite; any unit.
        correct: (N,) of 0 and 1, whether the answer is right.

    Raises:
        ValueError: If a shape is wrong, a confidence is not finite or `correct` is not 0 or 1.

    >>> curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    >>> curve.coverage.tolist(), curve.risk.round(decimals=3).tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.333, 0.25])

    Reference: El-Yaniv & Wiener 2010, JMLR 11:1605; Geifman & El-Yaniv 2017, arXiv 1705.08500.
    """
    scores, right = _read(confidence, correct)
    true, false = (counts[0] for counts in weighted.cumulate(scores, right, np.ones((1, scores.size))))
    answered = true + false
    curves = answered / scores.size, false / answered, np.unique(scores)[::-1].copy()
    return RiskCoverage(*(torch.from_numpy(curve) for curve in curves))


def selective_risk(
    confidence: Values, correct: Values, *, groups: Values | None = None, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Area under the risk-coverage curve: the mean risk over all numbers of images that may be answered.

    Args:
        confidence: As in `risk_coverage`.
        correct: As in `risk_coverage`.
        groups: (N,) patient of each image; each image is its own group if left out.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        In [0, 1], lower is better, with a 95 % interval; confidence that says nothing has the error rate.

    Raises:
        ValueError: As `risk_coverage` does, or if a group is missing.

    >>> round(selective_risk([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], resamples=10).value, 4)
    0.1458

    Reference: Geifman et al. 2019, arXiv 1805.08206 (AURC).
    """
    scores, right = _read(confidence, correct)

    def area(weights: Array) -> Array:
        true, false = weighted.cumulate(scores, right, weights)
        steps = np.diff(true + false, axis=1, prepend=0.0)
        risk = np.nan_to_num(weighted.divide(false, true + false))
        return weighted.divide(np.einsum("rt,rt->r", steps, risk), weights.sum(1))[:, None]

    return bootstrap_statistics(area, check_groups(groups, scores.size), resamples=resamples, seed=seed)[0]


def decision_confidence(probabilities: Values, threshold: float | Values | None = None) -> Array:
    """Return how sure a model is of what it decided, (N,).

    Of more than two exclusive classes, without a threshold: the largest probability. Otherwise the distance of the
    probability from its threshold in log-odds, which is 0 where the decision turns; of several labels the smallest one.

    Args:
        probabilities: (N, K) in [0, 1].
        threshold: For K = 2 exclusive classes, one number for the second; for several labels (K,) numbers; None: the
            most probable class.

    >>> decision_confidence([[0.6, 0.4], [0.2, 0.8]], 0.5).round(3).tolist()
    [0.405, 1.386]
    """
    array = to_numpy(probabilities).astype(np.float64)
    limits = None if threshold is None else to_numpy(threshold).astype(np.float64)  # type: ignore[arg-type]
    if limits is None and array.shape[1] != 2:
        confidence: Array = array.max(1)
        return confidence
    columns = array if limits is not None and limits.ndim else array[:, 1:]
    # The ends of float32 probabilities: certain, but finite.
    tiny = np.finfo(np.float64).tiny
    odds = logit(np.clip(columns, tiny, 1 - np.finfo(np.float64).eps))
    bounds = logit(np.clip(0.5 if limits is None else limits, tiny, 1 - np.finfo(np.float64).eps))
    distance: Array = np.abs(odds - bounds).min(1)
    return distance


def _read(confidence: Values, correct: Values) -> tuple[Array, NDArray[np.bool_]]:
    scores = check_vector(confidence, "confidence")
    return scores, check_binary(correct, "correct", size=scores.size)
