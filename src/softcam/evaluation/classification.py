"""How well both models classify, and whether the SoftCAM keeps up with the black box."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Floats, Indices, Predictions
from softcam.evaluation.settings import EvaluationSettings
from softcam.metrics import (
    Interval,
    bootstrap_interval,
    calibration_bins,
    classification_report,
    confusion_matrix,
    noninferiority,
    precision_recall_points,
    roc_points,
)
from softcam.predict import decide


def classify(predictions: Predictions, models: Contestants, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the part of `metrics.json` that is about predictions.

    Thresholds are those that the bundles bring from validation data; the test set chooses nothing. ROC and
    precision-recall curves are of the second class of two; with more classes all one-vs-rest decisions are pooled.
    The non-inferiority test is DeLong's and needs a black box, two classes, and images of two patients of each.

    Args:
        predictions: Of all images.
        models: Their thresholds and classes.
        settings: Resamples, seed and margin.
    """
    scored = {"softcam": predictions.probabilities, "black_box": predictions.black_box}
    found = {name: values for name, values in scored.items() if values is not None}
    thresholds, count = models.thresholds, len(models.classes)
    targets = predictions.targets
    reports = {
        name: classification_report(
            values, targets, threshold=thresholds[name],
            groups=predictions.patients, resamples=settings.resamples, seed=settings.seed,
        )
        for name, values in found.items()
    }  # fmt: skip
    pooled = {name: _pool(values, targets) for name, values in found.items()}
    return {
        "classification": _as_records(reports["softcam"]),
        "black_box": _as_records(reports["black_box"]) if "black_box" in reports else None,
        "noninferiority": _compare(predictions, settings),
        "calibration": {n: [asdict(entry) for entry in calibration_bins(v, targets)] for n, v in found.items()},
        "confusion": {
            name: confusion_matrix(decide(values, thresholds[name]), targets, num_classes=count).tolist()
            for name, values in found.items()
        },
        "roc": {name: _points(roc_points(*pair)._asdict(), "fpr", "tpr") for name, pair in pooled.items()},
        "pr": {
            name: _points(precision_recall_points(*pair)._asdict(), "recall", "precision")
            for name, pair in pooled.items()
        },
        "thresholds": thresholds,
    }


def check_consistency(predictions: Predictions, *, num_classes: int, settings: EvaluationSettings) -> dict[str, Any]:
    """Return how far the sign of the cells agrees with the image's label.

    With two classes: `positive_share` of cells above 0 in the disease map (the second class) of diseased images and
    `negative_share` of cells below 0 in the disease map of healthy images. With softmax a constant may move between
    the two class maps without changing a prediction; `margin_positive_share` and `margin_negative_share` look at the
    difference of the maps, which such a constant does not touch. With more classes, the map of each image's own
    label and the positive shares alone.

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
    for name, column in columns.items():
        chosen = diseased if "positive" in name else ~diseased
        values = predictions.shares[chosen, column]
        if num_classes == 2 or "positive" in name:
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


def _compare(predictions: Predictions, settings: EvaluationSettings) -> dict[str, Any] | None:
    if predictions.black_box is None or predictions.black_box.shape[1] != 2:
        return None
    new, old = predictions.probabilities[:, 1], predictions.black_box[:, 1]
    result = noninferiority(predictions.targets, new, old, margin=settings.margin, groups=predictions.patients)
    return {"metric": "auroc", **result._asdict()} if np.isfinite(result.low) else None


def _pool(probabilities: Floats, targets: Indices) -> tuple[Floats, Indices]:
    classes = probabilities.shape[1]
    if classes == 2:
        return probabilities[:, 1], targets
    return probabilities.ravel(), np.eye(classes, dtype=np.int64)[targets].ravel()


def _points(values: dict[str, Any], *names: str) -> dict[str, list[float]]:
    return {name: values[name].tolist() for name in names}


def _as_records(intervals: dict[str, Interval]) -> dict[str, dict[str, Any]]:
    return {name: interval._asdict() for name, interval in intervals.items()}
