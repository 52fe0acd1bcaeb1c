"""How well the probabilities classify and how far they can be believed, with intervals over patients.

Point estimates and intervals come from the same weighted kernels (`softcam.metrics.weighted`), in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.metrics import weighted
from softcam.metrics.inputs import Array, Values, check_binary, check_groups, check_positive, check_vector
from softcam.metrics.statistics import Interval, bootstrap_statistics
from softcam.metrics.tasks import Task, check_classes, read_task

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class CalibrationBin:
    """One non-empty bin of a reliability diagram.

    Args:
        confidence: Mean confidence in the bin, in [0, 1].
        accuracy: Share of the bin's images for which it was right, in [0, 1].
        count: Number of images in the bin.
    """

    confidence: float
    accuracy: float
    count: int


class RocPoints(NamedTuple):
    """Corners of a ROC curve from (0, 0) to (1, 1), each (T + 1,) float64 for T distinct scores.

    Args:
        fpr: False positive rate; NaN without negatives.
        tpr: True positive rate; NaN without positives.
        thresholds: A score at or above the threshold is called positive; infinity at (0, 0).
    """

    fpr: Tensor
    tpr: Tensor
    thresholds: Tensor


class PrecisionRecallPoints(NamedTuple):
    """Corners of a precision-recall curve by increasing recall, each (T,) float64 for T distinct scores.

    Args:
        recall: Share of the positives that are found; NaN without positives.
        precision: Share of the found that are positive.
        thresholds: A score at or above the threshold is called positive.
    """

    recall: Tensor
    precision: Tensor
    thresholds: Tensor


def classification_report(
    probabilities: Values,
    targets: Values,
    *,
    threshold: float | Values | None = None,
    groups: Values | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Ten numbers with 95 % percentile bootstrap intervals over groups, all from the same resamples.

    `auroc`, `average_precision` (step-wise), `accuracy`, `balanced_accuracy`, `sensitivity`, `specificity`,
    `precision`, `f1`: higher is better; `brier`, `ece`: lower is better; all in [0, 1].

    With two classes, class 1 is the positive one. With more, and for several labels per image, every number is the
    unweighted mean over one-vs-rest classes (macro), except that the accuracy of classes that exclude each other is
    the share of images whose largest probability is the true class, their `brier` is half the squared error summed
    over classes, and their `ece` is that of the largest probability. NaN where a class makes the number undefined:
    AUROC without both classes, sensitivity without positives, precision of a class never predicted. The `ece` of a
    resample is biased upwards, so its interval sits high.

    Args:
        probabilities: (N, K) in [0, 1]; rows sum to 1 unless there are several labels per image.
        targets: (N,) class indices, or (N, K) of 0 and 1 for several labels per image, or for the sigmoid of one logit.
        threshold: Probability from which a class is called positive, 0.5 if left out; one number for two classes,
            one or (K,) for several labels; none for more than two classes that exclude each other.
        groups: (N,) patient of each image; each image is its own group if left out.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        Interval by name.

    Raises:
        ValueError: If a shape, a probability, a target or the threshold is out of range, or a group is missing.

    >>> report = classification_report([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], resamples=100)
    >>> round(report["accuracy"].value, 3), report["auroc"].value
    (0.667, 1.0)

    Reference: Hanley & McNeil 1982 (AUROC); Davis & Goadrich 2006 (average precision); Brier 1950;
    Guo et al. 2017, arXiv 1706.04599 (calibration); Field & Welsh 2007 (patients).
    """
    task = read_task(probabilities, targets, threshold)
    return _bootstrap_report(_STATISTICS, task, check_groups(groups, len(task.scores)), resamples, seed)


def per_class_report(
    probabilities: Values,
    targets: Values,
    *,
    threshold: float | Values | None = None,
    groups: Values | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[dict[str, Interval], ...]:
    """Return the one-vs-rest numbers of `classification_report` for each class or label on its own.

    Args:
        probabilities: As in `classification_report`.
        targets: As in `classification_report`.
        threshold: As in `classification_report`.
        groups: As in `classification_report`.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        One dictionary per class (only the positive one for two classes) with `auroc`, `average_precision`,
        `sensitivity`, `specificity`, `precision` and `f1`.

    Raises:
        ValueError: As `classification_report` does.
    """
    task = read_task(probabilities, targets, threshold)
    index = check_groups(groups, len(task.scores))
    columns = [np.s_[:, k : k + 1] for k in range(task.scores.shape[1])]
    parts = [Task(task.scores[c], task.truth[c], task.decisions[c], exclusive=False) for c in columns]
    return tuple(_bootstrap_report(_PER_CLASS, part, index, resamples, seed) for part in parts)


def auroc(scores: Values, targets: Values) -> float:
    """Area under the ROC curve, ties counting one half; in [0, 1], higher is better, NaN without both classes.

    Args:
        scores: (N,) finite; higher means more likely positive. Any unit.
        targets: (N,) of 0 and 1.

    Raises:
        ValueError: If a shape is wrong, a score is not finite or a target is not 0 or 1.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75

    Reference: Hanley & McNeil 1982, Radiology 143:29.
    """
    array, positive = _read_binary(scores, targets)
    return float(weighted.auroc(array, positive, np.ones((1, array.size)))[0])


def average_precision(scores: Values, targets: Values) -> float:
    """Step-wise area under the precision-recall curve; in [0, 1], higher is better, NaN without positives.

    Never interpolated: the trapezoid is optimistic. Chance level is the share of positives.

    Args:
        scores: (N,) finite; higher means more likely positive. Any unit.
        targets: (N,) of 0 and 1.

    Raises:
        ValueError: If a shape is wrong, a score is not finite or a target is not 0 or 1.

    >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
    0.8333

    Reference: Davis & Goadrich 2006, ICML.
    """
    array, positive = _read_binary(scores, targets)
    return float(weighted.average_precision(array, positive, np.ones((1, array.size)))[0])


def roc_points(scores: Values, targets: Values) -> RocPoints:
    """Return the ROC curve whose area `auroc` is; arguments and errors as there."""
    array, positive = _read_binary(scores, targets)
    true, false = (c[0] for c in weighted.cumulate(array, positive, np.ones((1, array.size))))
    rates = [np.append(0.0, count) / (count[-1] or np.nan) for count in (false, true)]
    thresholds = np.append(np.inf, np.unique(array)[::-1])
    return RocPoints(*(torch.from_numpy(a) for a in (*rates, thresholds)))


def precision_recall_points(scores: Values, targets: Values) -> PrecisionRecallPoints:
    """Return the precision-recall curve whose step-wise area `average_precision` is; arguments and errors as there."""
    array, positive = _read_binary(scores, targets)
    true, false = (c[0] for c in weighted.cumulate(array, positive, np.ones((1, array.size))))
    curves = true / (true[-1] or np.nan), true / (true + false), np.unique(array)[::-1].copy()
    return PrecisionRecallPoints(*(torch.from_numpy(a) for a in curves))


def confusion_matrix(predicted: Values, targets: Values, *, num_classes: int) -> Tensor:
    """Count images by true (row) and predicted (column) class.

    Args:
        predicted: (N,) class indices.
        targets: (N,) class indices.
        num_classes: K, at least 2.

    Returns:
        (K, K) int64.

    Raises:
        ValueError: If a shape is wrong or an index lies outside [0, K).

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], num_classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    rows = check_classes(targets, "targets", num_classes)
    columns = check_classes(predicted, "predicted", num_classes, size=rows.size)
    counts = weighted.tabulate(columns, rows, np.ones((1, rows.size)), num_classes)[0]
    return torch.from_numpy(counts.astype(np.int64))


def quadratic_weighted_kappa(
    predicted: Values,
    targets: Values,
    *,
    num_classes: int,
    groups: Values | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Agreement of ordinal grades beyond chance, disagreement weighted by its square.

    Args:
        predicted: (N,) grades from 0.
        targets: (N,) grades from 0.
        num_classes: Number of grades, at least 2.
        groups: (N,) patient of each image; each image is its own group if left out.
        resamples: Number of resamples, at least 1.
        seed: Seed of the resamples.

    Returns:
        In [-1, 1], higher is better, with a 95 % interval; NaN if all images have one and the same grade in both.

    Raises:
        ValueError: If a shape is wrong, a grade lies outside [0, num_classes), or a group is missing.

    Reference: Cohen 1968, Psychological Bulletin 70:213.
    """
    rows = check_classes(targets, "targets", num_classes)
    columns = check_classes(predicted, "predicted", num_classes, size=rows.size)

    def kappa(weights: Array) -> Array:
        return weighted.quadratic_kappa(weighted.tabulate(columns, rows, weights, num_classes))[:, None]

    return bootstrap_statistics(kappa, check_groups(groups, rows.size), resamples=resamples, seed=seed)[0]


def calibration_bins(
    probabilities: Values, targets: Values, *, bins: int = CALIBRATION_BINS
) -> tuple[CalibrationBin, ...]:
    """Confidence against accuracy in equally wide bins [i / bins, (i + 1) / bins), 1 in the last; empty ones left out.

    The confidence is the probability of class 1 for two classes, of every label for several labels per image (all
    labels pooled), and the largest probability otherwise.

    Args:
        probabilities: (N, K), as in `classification_report`.
        targets: (N,) or (N, K), as in `classification_report`.
        bins: Number of bins, at least 1.

    Returns:
        The non-empty bins by increasing confidence.

    Raises:
        ValueError: If a shape, a probability, a target or `bins` is out of range.

    Reference: Guo et al. 2017, arXiv 1706.04599, section 2.
    """
    check_positive(bins, "bins")
    columns, right = read_task(probabilities, targets, None).calibration
    confidence, correct = columns.ravel(), right.ravel()
    index = weighted.bin_index(confidence, bins)
    counts, sums, hits = (np.bincount(index, w, minlength=bins) for w in (None, confidence, correct))
    filled = np.flatnonzero(counts)
    return tuple(CalibrationBin(float(sums[i] / counts[i]), float(hits[i] / counts[i]), int(counts[i])) for i in filled)


def _macro(values: list[Array]) -> Array:
    mean: Array = np.mean(values, axis=0)
    return mean


def _macro_share(numerator: Array, denominator: Array) -> Array:
    mean: Array = weighted.divide(numerator, denominator).mean(1)
    return mean


def _columnwise(metric: weighted.Ranking) -> Callable[[Task, Array], Array]:
    def macro(task: Task, weights: Array) -> Array:
        columns = zip(task.scores.T, task.truth.T, strict=True)
        return _macro([metric(scores, truth, weights) for scores, truth in columns])

    return macro


def _sensitivity(task: Task, weights: Array) -> Array:
    return _macro_share(weights @ (task.decisions & task.truth), weights @ task.truth)


def _specificity(task: Task, weights: Array) -> Array:
    return _macro_share(weights @ (~task.decisions & ~task.truth), weights @ ~task.truth)


def _balanced_accuracy(task: Task, weights: Array) -> Array:
    # The mean recall of all classes: with exclusive classes a negative is another class's positive.
    recall = _sensitivity(task, weights)
    return recall if task.exclusive else (recall + _specificity(task, weights)) / 2


def _precision(task: Task, weights: Array) -> Array:
    return _macro_share(weights @ (task.decisions & task.truth), weights @ task.decisions)


def _f1(task: Task, weights: Array) -> Array:
    found = 2 * (weights @ (task.decisions & task.truth))
    return _macro_share(found, weights @ task.decisions + weights @ task.truth)


def _ece(task: Task, weights: Array) -> Array:
    columns = zip(*(part.T for part in task.calibration), strict=True)
    return _macro([weighted.calibration_error(c, hit, weights, CALIBRATION_BINS) for c, hit in columns])


_Statistic = Callable[[Task, Array], Array]
_PER_CLASS: dict[str, _Statistic] = {
    "auroc": _columnwise(weighted.auroc),
    "average_precision": _columnwise(weighted.average_precision),
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "precision": _precision,
    "f1": _f1,
}
_STATISTICS: dict[str, _Statistic] = {
    **_PER_CLASS,
    "accuracy": lambda task, weights: weighted.mean(task.correct, weights),
    "balanced_accuracy": _balanced_accuracy,
    "brier": lambda task, weights: weighted.mean(task.squared_error, weights),
    "ece": _ece,
}


def _bootstrap_report(
    statistics: dict[str, _Statistic], task: Task, groups: NDArray[np.intp], resamples: int, seed: int
) -> dict[str, Interval]:
    def compute(weights: Array) -> Array:
        return np.stack([statistic(task, weights) for statistic in statistics.values()], axis=1)

    intervals = bootstrap_statistics(compute, groups, resamples=resamples, seed=seed)
    return dict(zip(statistics, intervals, strict=True))


def _read_binary(scores: Values, targets: Values) -> tuple[Array, NDArray[np.bool_]]:
    array = check_vector(scores, "scores")
    return array, check_binary(targets, "targets", size=array.size)
