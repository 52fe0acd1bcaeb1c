"""How well both models classify, and whether the SoftCAM keeps up with the black box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcam.evaluation.labels import Floats, Indices, Threshold, decide_labels
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.settings import EvaluationSettings
from softcam.metrics import (
    Interval,
    bootstrap_interval,
    calibration_bins,
    classification_report,
    confusion_matrix,
    noninferiority,
    per_class_report,
    precision_recall_points,
    quadratic_weighted_kappa,
    roc_points,
)


def classify(predictions: Predictions, models: Contestants, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the part of `metrics.json` that is about predictions.

    Thresholds are those that the bundles bring from validation data; the test set chooses nothing. ROC and
    precision-recall curves are of the second class of two; with more classes all one-vs-rest decisions are pooled.
    The non-inferiority test is DeLong's and needs a black box, two classes, and images of two patients of each.
    Grades also get their quadratic weighted kappa; independent labels a confusion matrix (absent, present) and
    `per_class` numbers each.

    Args:
        predictions: Of all images.
        models: Their thresholds and classes.
        settings: Resamples, seed and margin.
    """
    scored = {"softcam": predictions.probabilities, "black_box": predictions.black_box}
    found = {name: values for name, values in scored.items() if values is not None}
    thresholds, targets = models.thresholds, predictions.targets
    reports = {
        name: _report(values, predictions, thresholds[name], settings)
        | (_kappa(values, predictions, settings) if models.ordinal else {})
        for name, values in found.items()
    }
    pooled = {name: _pool(values, targets) for name, values in found.items()}
    return {
        "classification": _as_records(reports["softcam"]),
        "black_box": _as_records(reports["black_box"]) if "black_box" in reports else None,
        "noninferiority": _compare(predictions, settings),
        "calibration": {n: [asdict(entry) for entry in calibration_bins(v, targets)] for n, v in found.items()},
        "confusion": {
            name: _confuse(decide_labels(values, thresholds[name]), targets, models.classes)
            for name, values in found.items()
        },
        "roc": {name: _points(roc_points(*pair)._asdict(), "fpr", "tpr") for name, pair in pooled.items()},
        "pr": {
            name: _points(precision_recall_points(*pair)._asdict(), "recall", "precision")
            for name, pair in pooled.items()
        },
        "thresholds": {name: _describe_threshold(at, models.classes) for name, at in thresholds.items()},
    } | ({"per_class": _report_each(found, predictions, models, settings)} if models.multi_label else {})


def check_consistency(predictions: Predictions, *, num_classes: int, settings: EvaluationSettings) -> dict[str, Any]:
    """Return how far the sign of the cells agrees with the image's label.

    With two classes: `positive_share` of cells above 0 in the disease map (the second class) of diseased images and
    `negative_share` of cells below 0 in the disease map of healthy images. With softmax a constant may move between
    the two class maps without changing a prediction; `margin_positive_share` and `margin_negative_share` look at the
    difference of the maps, which such a constant does not touch. With more classes, the map of each image's own
    label and the positive shares alone. With independent labels, `positive_share` in the maps of an image's labels and
    `negative_share` in those of the others.

    Args:
        predictions: Of all images.
        num_classes: K.
        settings: Resamples and seed.

    Returns:
        Name -> `value`, `low`, `high`, `n`.
    """
    columns = {"positive_share": 0, "negative_share": 1, "margin_positive_share": 2, "margin_negative_share": 3}
    diseased = predictions.targets > 0 if num_classes == 2 else np.ones(len(predictions), dtype=bool)
    results = {}
    if predictions.targets.ndim == 2:
        diseased, columns = np.ones(len(predictions), dtype=bool), {"positive_share": 0, "negative_share": 1}
    for name, column in columns.items():
        chosen = diseased if "positive" in name or predictions.targets.ndim == 2 else ~diseased
        values = predictions.shares[chosen, column]
        if num_classes == 2 or "positive" in name or predictions.targets.ndim == 2:
            groups = None if predictions.patients is None else predictions.patients[chosen]
            results[name] = summarize(values, groups, settings)
    return _as_records(results)


def summarize(values: Floats, groups: NDArray[np.object_] | None, settings: EvaluationSettings) -> Interval:
    """Return the mean over images with its bootstrap interval; NaN where there is no image.

    Args:
        values: (N,), NaN where undefined.
        groups: (N,) patients, if known.
        settings: Resamples and seed.
    """
    if not len(values):
        return Interval(np.nan, np.nan, np.nan, 0)
    return bootstrap_interval(values, groups=groups, resamples=settings.resamples, seed=settings.seed)


def _report(
    values: Floats, predictions: Predictions, threshold: Threshold, settings: EvaluationSettings
) -> dict[str, Interval]:
    return classification_report(
        values, predictions.targets, threshold=threshold,
        groups=predictions.patients, resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip


def _report_each(
    found: dict[str, Floats], predictions: Predictions, models: Contestants, settings: EvaluationSettings
) -> dict[str, dict[str, Any]]:
    """Return the numbers of each label on its own, by model and label."""
    records = {}
    for name, values in found.items():
        reports = per_class_report(
            values, predictions.targets, threshold=models.thresholds[name],
            groups=predictions.patients, resamples=settings.resamples, seed=settings.seed,
        )  # fmt: skip
        records[name] = {label: _as_records(report) for label, report in zip(models.classes, reports, strict=True)}
    return records


def _kappa(values: Floats, predictions: Predictions, settings: EvaluationSettings) -> dict[str, Interval]:
    interval = quadratic_weighted_kappa(
        values.argmax(axis=1), predictions.targets, num_classes=values.shape[1],
        groups=predictions.patients, resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    return {"quadratic_weighted_kappa": interval}


def _confuse(decided: Indices, targets: Indices, classes: Sequence[str]) -> Any:
    """Return the confusion matrix (K, K), or for independent labels one (2, 2) of absent and present by label."""
    if targets.ndim == 1:
        return confusion_matrix(decided, targets, num_classes=len(classes)).tolist()
    return {
        name: confusion_matrix(decided[:, index], targets[:, index], num_classes=2).tolist()
        for index, name in enumerate(classes)
    }


def _describe_threshold(threshold: Threshold, classes: Sequence[str]) -> Any:
    return dict(zip(classes, threshold, strict=True)) if isinstance(threshold, tuple) else threshold


def _compare(predictions: Predictions, settings: EvaluationSettings) -> dict[str, Any] | None:
    is_binary = predictions.targets.ndim == 1 and predictions.probabilities.shape[1] == 2
    if predictions.black_box is None or not is_binary:
        return None
    new, old = predictions.probabilities[:, 1], predictions.black_box[:, 1]
    result = noninferiority(predictions.targets, new, old, margin=settings.margin, groups=predictions.patients)
    return {"metric": "auroc", **result._asdict()} if np.isfinite(result.low) else None


def _pool(probabilities: Floats, targets: Indices) -> tuple[Floats, Indices]:
    classes = probabilities.shape[1]
    if targets.ndim == 2:
        return probabilities.ravel(), targets.ravel()
    if classes == 2:
        return probabilities[:, 1], targets
    return probabilities.ravel(), np.eye(classes, dtype=np.int64)[targets].ravel()


def _points(values: dict[str, Any], *names: str) -> dict[str, list[float]]:
    return {name: values[name].tolist() for name in names}


def _as_records(intervals: dict[str, Interval]) -> dict[str, dict[str, Any]]:
    return {name: interval._asdict() for name, interval in intervals.items()}
