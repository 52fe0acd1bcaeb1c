"""A test set as one-vs-rest columns: probabilities, truth and decisions, checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softcam.metrics.inputs import Array, Values, check_binary, check_vector, to_numpy

# Half-precision softmax rows miss 1 by up to about this much.
_ROW_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Task:
    """A test set as one-vs-rest columns: the positive class of a binary task, every class or label otherwise.

    Args:
        scores: (N, C) probabilities.
        truth: (N, C) whether the image is of the class.
        decisions: (N, C) whether the image is called so.
        exclusive: Whether there are more than two classes that exclude each other.
    """

    scores: Array
    truth: NDArray[np.bool_]
    decisions: NDArray[np.bool_]
    exclusive: bool

    @property
    def correct(self) -> Array:
        """Share of an image's decisions that are right, (N,)."""
        agree = self.decisions == self.truth
        share: Array = agree.all(1).astype(np.float64) if self.exclusive else agree.mean(1)
        return share

    @property
    def squared_error(self) -> Array:
        """Brier score of each image, (N,) in [0, 1]."""
        squares = (self.scores - self.truth) ** 2
        error: Array = squares.sum(1) / 2 if self.exclusive else squares.mean(1)
        return error

    @property
    def calibration(self) -> tuple[Array, NDArray[np.bool_]]:
        """Confidences and whether they were right, (N, M): top class if exclusive, otherwise each positive class."""
        if not self.exclusive:
            return self.scores, self.truth
        right: NDArray[np.bool_] = np.any(self.decisions & self.truth, axis=1, keepdims=True)
        return self.scores.max(1, keepdims=True), right


def read_task(probabilities: Values, targets: Values, threshold: float | Values | None) -> Task:
    """Check and arrange what `softcam.metrics.classification.classification_report` accepts; errors as there."""
    labels = to_numpy(targets)
    scores = _check_probabilities(probabilities, fewest=1 if labels.ndim == 2 else 2)
    size, classes = scores.shape
    if labels.ndim == 2:
        truth = np.stack([check_binary(column, "targets", size=size) for column in labels.T], axis=1)
        if truth.shape != scores.shape:
            raise ValueError(f"Expected `targets` to be of shape {scores.shape}, but got {truth.shape}. Match them.")
        return Task(scores, truth, scores >= _check_threshold(threshold, classes), exclusive=False)
    index = check_classes(labels, "targets", classes, size=size)
    _check_row_sums(scores)
    if classes == 2:
        scores = scores[:, 1:]
        return Task(scores, index[:, None] == 1, scores >= _check_threshold(threshold, 1), exclusive=False)
    if threshold is not None:
        raise ValueError(f"Expected `threshold` to be left out for {classes} classes, but got one. Remove it.")
    grid = np.arange(classes)
    return Task(scores, index[:, None] == grid, scores.argmax(1)[:, None] == grid, exclusive=True)


def _check_probabilities(probabilities: Values, *, fewest: int) -> Array:
    array = to_numpy(probabilities).astype(np.float64)
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] < fewest:
        raise ValueError(
            f"Expected `probabilities` to be of shape (N, K) with N >= 1 and K >= {fewest}, but got {array.shape}. "
            "For a binary task stack the probabilities of both classes, or pass (N, 1) probabilities and targets."
        )
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError("Expected `probabilities` to lie in [0, 1], but got others. Apply softmax or sigmoid first.")
    return array


def _check_row_sums(probabilities: Array) -> None:
    worst = float(np.abs(probabilities.sum(1) - 1).max())
    if worst > _ROW_SUM_TOLERANCE:
        raise ValueError(
            f"Expected each row of `probabilities` to sum to 1, but got a row off by {worst:.3g}. "
            "Apply softmax, or pass (N, K) targets if an image may have several labels."
        )


def _check_threshold(threshold: float | Values | None, columns: int) -> Array:
    array = to_numpy(0.5 if threshold is None else threshold).astype(np.float64)  # type: ignore[arg-type]
    if array.shape not in {(), (columns,)} or not np.isfinite(array).all():
        wanted = "one number" if columns == 1 else f"one number or ({columns},) numbers"
        raise ValueError(f"Expected `threshold` to be {wanted}, but got shape {array.shape}. Choose it on validation.")
    return array


def check_classes(labels: Values, name: str, classes: int, size: int | None = None) -> NDArray[np.intp]:
    """Return (N,) class indices; ValueError for an index outside [0, classes) or fewer than two classes."""
    if classes < 2:
        raise ValueError(f"Expected `num_classes` to be at least 2, but got {classes}. Count all classes.")
    array = check_vector(labels, name, size=size)
    if not np.isin(array, np.arange(classes)).all():
        raise ValueError(f"Expected `{name}` to be class indices in [0, {classes}), but got others. Encode them first.")
    return array.astype(np.intp)
