"""What an evaluation found, and the files that hold it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from softcam.files import write_atomic
from softcam.runs import plain, write_table


@dataclass(frozen=True, eq=False)
class GalleryCase:
    """One image with everything a reader needs to judge its explanation.

    Args:
        image_id: The image's path as the manifest has it.
        kind: `right` or `wrong`.
        label: Name of the true class; where classes are independent, those of all labels, joined by `;`.
        predicted: Name of the class the model decided for; where classes are independent, of the one
            that is explained.
        classes: Class names in the order of the logits.
        probabilities: (K,).
        logits: (K,).
        maps: (K, h, w), signed, in logit units.
        margin: (h, w), evidence for the predicted class rather than its strongest rival, if it has one.
        pixels: (S, S, 3) uint8, the image as the network saw it.
        geometry: `Geometry.to_dict()`, from network input to original pixels.
        peers: Maps (h, w) of post-hoc methods for the predicted class, by method name.
        multi_label: Whether classes are independent.
    """

    image_id: str
    kind: str
    label: str
    predicted: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]
    maps: NDArray[np.float32]
    margin: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    geometry: dict[str, Any]
    peers: dict[str, NDArray[np.float32]]
    multi_label: bool = False


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """All findings of an evaluation.

    Args:
        metrics: What `metrics.json` holds: `classification`, `black_box`, `noninferiority`, `identity`,
            `calibration`, `confusion`, `roc`, `pr`, `consistency`, `locality`, `comparisons`, `classes`, `thresholds`,
            `threshold_rule` (how those of the SoftCAM were chosen, null if its bundle does not say),
            `uncertainty` (temperature, target and coverage of prediction sets, selective prediction),
            `counts` (`failed_masks`: of the explained images alone), `others` (further SoftCAM models by name:
            `classification`, `noninferiority`, `consistency`, `max_relative_error`).
        benchmark: One row per method and metric:
            `method, metric, direction, value, low, high, n, undefined, model, layer`.
        curves: One row per method, curve, fill and point:
            `method, curve, fill, patches, fraction, probability, low, high, n`.
        predictions: One row per image: `image, label, predicted, prob_<class>…, black_box_prob_<class>…, sum_error`,
            with `prediction_set` where the model has some.
        gallery: Right and wrong cases.
        provenance: What reproduces the numbers, which files failed, and which subsamples were taken and why.
        values: One row per explained image and method: `image, patient, method`, then a column per metric.
    """

    metrics: dict[str, Any]
    benchmark: pd.DataFrame
    curves: pd.DataFrame
    predictions: pd.DataFrame
    gallery: tuple[GalleryCase, ...]
    provenance: dict[str, Any]
    values: pd.DataFrame = field(default_factory=pd.DataFrame)


def write_evaluation(result: EvaluationResult, out: str | Path) -> Path:
    """Write the tables and numbers of an evaluation, each file whole or not at all.

    `benchmark.csv`, `values.csv`, `curves.csv`, `predictions.csv`, `failures.csv` (also when empty: `image,reason`),
    `provenance.json` and, last, `metrics.json`. NaN becomes null in JSON and an empty field in CSV.

    Args:
        result: What `evaluate` returned.
        out: The folder; made if needed.

    Returns:
        The folder.
    """
    folder = Path(out)
    failures = pd.DataFrame(result.provenance.get("failures", []), columns=["image", "reason"])
    tables = {
        "benchmark": result.benchmark,
        "values": result.values,
        "curves": result.curves,
        "predictions": result.predictions,
        "failures": failures,
    }
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", table)
    for name, values in (("provenance", result.provenance), ("metrics", result.metrics)):
        write_atomic(folder / f"{name}.json", json.dumps(plain(values), indent=2, allow_nan=False) + "\n")
    return folder
