"""Whether what a model says about its uncertainty holds on test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcam.bundle import Calibration
from softcam.evaluation.labels import Floats, Indices, Threshold, agree, decide_labels
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.settings import EvaluationSettings
from softcam.metrics import (
    coverage,
    decision_confidence,
    expected_coverage,
    least_images,
    risk_coverage,
    selective_risk,
    set_sizes,
)

POINTS = 500
"""Most points of a curve that are kept."""


def describe_uncertainty(predictions: Predictions, models: Contestants, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the part of `metrics.json` that is about uncertainty.

    Args:
        predictions: Of all images.
        models: Their thresholds and calibration.
        settings: Resamples and seed.

    Returns:
        `temperature`; what `describe_sets` returns under `sets`, None where there are none; `selective` by model: what
        `describe_selection` returns.
    """
    calibration = models.config.calibration
    random: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    scored = {"softcam": predictions.probabilities, "black_box": predictions.black_box}
    sets = None
    if predictions.sets is not None and calibration is not None:
        sets = describe_sets(
            predictions.sets, predictions.targets, calibration,
            classes=models.classes, groups=predictions.patients, random=random,
        )  # fmt: skip
    return {
        "temperature": None if calibration is None else calibration.temperature,
        "sets": sets,
        "selective": {
            name: describe_selection(
                values, predictions.targets, models.thresholds[name], groups=predictions.patients, random=random
            )
            for name, values in scored.items()
            if values is not None
        },
    }


def describe_sets(
    sets: NDArray[np.bool_],
    targets: Indices,
    calibration: Calibration,
    *,
    classes: Sequence[str],
    groups: NDArray[np.object_] | None,
    random: dict[str, Any],
) -> dict[str, Any]:
    """Return how often prediction sets hold the true class, and how large they are.

    Args:
        sets: (N, K) which classes are in the set.
        targets: (N,) true classes.
        calibration: What the sets were made with.
        classes: K names.
        groups: (N,) patients, if known.
        random: `resamples` and `seed` of intervals over patients.

    Returns:
        `method`, `alpha`, `target` (1 - alpha), `coverage` with its interval, `expected` (between which shares the
        coverage of so many images lies in 95 of 100 calibrations on so many), `class_coverage` by class, which nobody
        promised, `size`.
    """
    alpha, n = float(calibration.alpha or 0.0), calibration.n
    each = {}
    for index, name in enumerate(classes):
        own = targets == index
        if own.any():
            patients = None if groups is None else groups[own]
            each[name] = coverage(sets[own], targets[own], groups=patients, **random)._asdict()
    expected = expected_coverage(n, alpha=alpha, total=len(targets)) if n >= least_images(alpha) else None
    return {
        "method": calibration.method,
        "alpha": alpha,
        "target": 1 - alpha,
        "calibrated_on": n,
        "coverage": coverage(sets, targets, groups=groups, **random)._asdict(),
        "expected": None if expected is None else list(expected),
        "class_coverage": each,
        "size": set_sizes(sets)._asdict(),
    }


def describe_selection(
    probabilities: Floats,
    targets: Indices,
    threshold: Threshold,
    *,
    groups: NDArray[np.object_] | None,
    random: dict[str, Any],
) -> dict[str, Any]:
    """Return how the error falls if the images are left out of which a model is least sure.

    An image with several labels is right if every one of them was decided rightly.

    Args:
        probabilities: (N, K).
        targets: (N,) or (N, K).
        threshold: From which probability a class is reported.
        groups: (N,) patients, if known.
        random: `resamples` and `seed` of the interval.

    Returns:
        `area` under the curve with its interval, and the curve: `coverage` and `risk`.
    """
    confidence = decision_confidence(probabilities, threshold)
    correct = agree(decide_labels(probabilities, threshold), targets).astype(np.float64)
    curve = risk_coverage(confidence, correct)
    chosen = np.unique(np.linspace(0, len(curve.risk) - 1, POINTS).round().astype(int))
    return {
        "area": selective_risk(confidence, correct, groups=groups, **random)._asdict(),
        "coverage": curve.coverage.numpy()[chosen].tolist(),
        "risk": curve.risk.numpy()[chosen].tolist(),
    }
