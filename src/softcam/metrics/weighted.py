"""Classification metrics of many weighted copies of one test set at once, so that a bootstrap costs one sort.

`weights` (R, N) say how often each of N images is in each of R copies; one row of ones is the test set itself.
Every function returns one value per copy, NaN where it is undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from softcam.metrics.inputs import Array

Mask: TypeAlias = NDArray[np.bool_]
Ranking: TypeAlias = Callable[[Array, Mask, Array], Array]


def divide(numerator: Array, denominator: Array) -> Array:
    """Divide, with NaN where the denominator is 0."""
    undefined = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=undefined, where=denominator != 0)
    return undefined


def cumulate(scores: Array, positive: Mask, weights: Array) -> tuple[Array, Array]:
    """Count true and false positives at every distinct score, from the highest down.

    Returns:
        True and false positives, each (R, T) for T distinct scores.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = weights[:, order]
    # Tied scores are one threshold: only the count after the last of them exists.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(ordered * positive[order], axis=1)[:, last]
    return true, np.cumsum(ordered, axis=1)[:, last] - true


def auroc(scores: Array, positive: Mask, weights: Array) -> Array:
    """Area under the ROC curve, ties counting one half; NaN without both classes."""
    true, false = cumulate(scores, positive, weights)
    before = np.pad(true[:, :-1], ((0, 0), (1, 0)))
    steps = np.diff(false, axis=1, prepend=0.0)
    return divide(np.einsum("rt,rt->r", steps, true + before) / 2, true[:, -1] * false[:, -1])


def average_precision(scores: Array, positive: Mask, weights: Array) -> Array:
    """Step-wise area under the precision-recall curve, never interpolated; NaN without positives."""
    true, false = cumulate(scores, positive, weights)
    precision = divide(true, true + false)
    steps = np.diff(true, axis=1, prepend=0.0)
    # Copies without the highest scores have no precision there, and no step either.
    return divide(np.einsum("rt,rt->r", steps, np.nan_to_num(precision)), true[:, -1])


def mean(values: Array, weights: Array) -> Array:
    """Weighted mean of (N,) values."""
    return divide(weights @ values, weights.sum(1))


def calibration_error(confidence: Array, correct: Mask, weights: Array, bins: int) -> Array:
    """Expected calibration error over equally wide bins of confidence."""
    member = np.eye(bins)[bin_index(confidence, bins)]
    gaps = weights @ (member * (confidence - correct)[:, None])
    return divide(np.abs(gaps).sum(1), weights.sum(1))


def bin_index(confidence: Array, bins: int) -> NDArray[np.intp]:
    """Number the bin [i / bins, (i + 1) / bins) of each confidence; 1 belongs to the last."""
    return np.minimum((confidence * bins).astype(np.intp), bins - 1)


def tabulate(predicted: NDArray[np.intp], targets: NDArray[np.intp], weights: Array, classes: int) -> Array:
    """Count (R, K, K) confusion matrices, true class by row."""
    cells = np.eye(classes * classes)[targets * classes + predicted]
    counts: Array = (weights @ cells).reshape(-1, classes, classes)
    return counts


def quadratic_kappa(confusion: Array) -> Array:
    """Quadratic weighted kappa of (R, K, K) confusion matrices; NaN where chance disagreement is 0."""
    grades = np.arange(confusion.shape[-1], dtype=np.float64)
    penalty = (grades[:, None] - grades) ** 2
    expected = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None, :]
    observed = (confusion * penalty).sum((1, 2)) * confusion.sum((1, 2))
    return 1 - divide(observed, (expected * penalty).sum((1, 2)))
