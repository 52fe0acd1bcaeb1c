"""The evaluation of a bundle on a manifest: predictions, comparison of methods, gallery, provenance."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softcam.data.manifest import Manifest
from softcam.evaluation.classification import check_consistency, classify
from softcam.evaluation.comparison import Comparison, compare_methods, plan_entries
from softcam.evaluation.gallery import collect_cases
from softcam.evaluation.kept import Kept
from softcam.evaluation.locality import describe_locality
from softcam.evaluation.models import Contestants, load_contestants
from softcam.evaluation.predictions import Predictions, Progress, predict_images, tabulate_predictions
from softcam.evaluation.provenance import list_versions, record_provenance
from softcam.evaluation.result import EvaluationResult
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.uncertainty import describe_uncertainty


def evaluate(
    model_path: str | Path,
    manifest: Manifest,
    *,
    black_box_path: str | Path | None = None,
    others: Mapping[str, str | Path] | None = None,
    settings: EvaluationSettings | None = None,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Evaluate a SoftCAM model, against its black-box twin where there is one.

    Both models run once over every image; the identity of maps and logits is checked on every prediction. Explanation
    methods are compared on a seeded, stratified part of the images. Without a twin, post-hoc methods explain the
    SoftCAM itself and there is no test of non-inferiority.

    Args:
        model_path: Bundle of the SoftCAM.
        manifest: The data; of it the split that the settings name is used.
        black_box_path: Bundle of the twin.
        others: Bundles of further SoftCAM models by name, which classify and explain the same images: their maps are
            compared as `evidence:<name>`.
        settings: Default: `EvaluationSettings()`.
        keep: Folder in which what is measured of each method and batch is kept: the same call then goes on where an
            earlier one was ended, and a call with further methods, measures or models measures these alone. None keeps
            nothing.
        progress: Called as `progress(stage, done, total)` with the stages "predict", "explain" and "gallery".

    Raises:
        BundleError: If a bundle cannot be read.
        ManifestError: If the manifest has no such split.
        RunError: If models and data do not belong together, no image could be read, or a result is NaN, or
            if the settings do not fit the models.
        ValueError: If a method names a layer that its model does not have.
        IdentityError: If the maps of any image do not average to its logits.
    """
    settings = settings or EvaluationSettings()
    part = manifest if settings.split is None else manifest.subset(settings.split)
    models = load_contestants(
        model_path, black_box_path, part, device=settings.device, others=others, augment=settings.augment
    )
    plan_entries(models, settings)
    seconds: dict[str, float] = {}
    with _timed(seconds, "predict"):
        predictions = predict_images(
            models, part, batch_size=settings.batch_size, tolerance=settings.tolerance, progress=progress
        )
    with _timed(seconds, "classify"):
        metrics = classify(predictions, models, settings)
    with _timed(seconds, "uncertainty"):
        metrics["uncertainty"] = describe_uncertainty(predictions, models, settings)
    with _timed(seconds, "others"):
        metrics["others"] = {name: _classify_other(name, models, predictions, settings) for name in models.others}
    with _timed(seconds, "explain"):
        kept = _open_kept(keep, models, settings)
        comparison = compare_methods(models, part, predictions, settings, kept=kept, progress=progress)
    with _timed(seconds, "locality"):
        locality = describe_locality(models, part, predictions, settings)
    with _timed(seconds, "gallery"):
        gallery = collect_cases(models, part, predictions, settings, progress=progress)
    return EvaluationResult(
        metrics=metrics | _describe(models, predictions, comparison, settings) | {"locality": locality},
        benchmark=comparison.benchmark,
        values=comparison.values,
        curves=comparison.curves,
        predictions=tabulate_predictions(predictions, models, part),
        gallery=gallery,
        provenance=record_provenance(models, part, predictions, comparison, settings, seconds=seconds),
    )


def _open_kept(keep: str | Path | None, models: Contestants, settings: EvaluationSettings) -> Kept:
    numbers = asdict(settings)
    names = ("points", "fills", "insertion_fills", "shares", "samples", "seed", "engine")
    return Kept(
        keep,
        settings=[
            settings.patch_side(models.preprocessing.size),
            {name: numbers[name] for name in names},
            *([] if settings.augment is None else [settings.augment]),
        ],
        versions=list_versions(),
        device=models.device.type,
    )


def _classify_other(
    name: str, models: Contestants, predictions: Predictions, settings: EvaluationSettings
) -> dict[str, Any]:
    """Return how well another SoftCAM model classifies, against the same black box."""
    found = predictions.others[name]
    metrics = classify(found, replace(models, config=models.others[name].config), settings)
    return {
        "classification": metrics["classification"],
        "noninferiority": metrics["noninferiority"],
        "consistency": check_consistency(found, num_classes=len(models.classes), settings=settings),
        "max_relative_error": float(found.sum_error.max()),
    }


def _describe(
    models: Contestants, predictions: Predictions, comparison: Comparison, settings: EvaluationSettings
) -> dict[str, Any]:
    return {
        "identity": {
            "max_relative_error": float(predictions.sum_error.max()),
            "n": len(predictions),
            "tolerance": settings.tolerance,
        },
        "consistency": check_consistency(predictions, num_classes=len(models.classes), settings=settings),
        "comparisons": comparison.differences,
        "classes": list(models.classes),
        "threshold_rule": models.config.threshold_rule,
        "conversion": None if models.config.conversion is None else dict(models.config.conversion),
        "counts": {
            "test": len(predictions),
            "failed": len(predictions.failures),
            "failed_masks": len(comparison.failures),
            "faithfulness": len(comparison.images),
            "faithfulness_slow": len(comparison.slow_images),
        },
    }


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
