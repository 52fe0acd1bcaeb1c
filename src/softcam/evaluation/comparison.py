"""Every explanation method on the same images, gathered into tables with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from softcam.data.manifest import Manifest
from softcam.errors import RunError
from softcam.evaluation.classification import summarize
from softcam.evaluation.entries import Entry, check_layers, list_entries
from softcam.evaluation.images import Failure, read_batches
from softcam.evaluation.kept import Kept
from softcam.evaluation.labels import Floats, Indices, has_label, to_strata
from softcam.evaluation.measures import list_metrics
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions, Progress
from softcam.evaluation.rounds import Engines, Round, Scores
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subsamples import draw_stratified
from softcam.evaluation.truth import has_truth, read_findings
from softcam.metrics import count_patches, holm, paired_bootstrap

REFERENCE = "evidence"
"""The method that all others are compared with."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the methods were found to be worth.

    Args:
        benchmark: One row per method and metric.
        values: One row per image and method: `image, patient, method`, then a column per metric.
        curves: One row per method, curve, fill and point.
        differences: Paired differences, method minus `REFERENCE` on the same images, with Holm-corrected p-values.
        seconds: Seconds per image that the maps alone took, by method.
        undefined: Why a method has no maps, by method.
        images: Positions, among the predictions, of the images that all methods explained.
        slow_images: Those that methods of cost "many" explained.
        failures: Masks that could not be read.
    """

    benchmark: pd.DataFrame
    values: pd.DataFrame
    curves: pd.DataFrame
    differences: list[dict[str, Any]]
    seconds: dict[str, float]
    undefined: dict[str, str]
    images: Indices
    slow_images: Indices
    failures: tuple[Failure, ...] = ()


def plan_entries(models: Contestants, settings: EvaluationSettings) -> tuple[Entry, ...]:
    """Return what is compared, once it is sure that the settings fit the models.

    Args:
        models: The models.
        settings: Methods, labels, patches and points.

    Raises:
        RunError: If the settings name a label that is no class, or more patches than an image has.
        ValueError: If a method names a layer that its model does not have.
    """
    unknown = [label for label in settings.explained_labels if label not in models.classes]
    if unknown:
        raise RunError(f"Expected `explained_labels` among {', '.join(models.classes)}, but got {unknown[0]!r}.")
    _check_patches(models, settings)
    entries = list_entries(settings.methods, has_black_box=models.black_box is not None, others=models.others)
    check_layers(entries, models.networks)
    return entries


def compare_methods(
    models: Contestants,
    manifest: Manifest,
    predictions: Predictions,
    settings: EvaluationSettings,
    *,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Explain the same images by every method and measure the maps.

    Post-hoc methods explain the black box where there is one, SoftCAM's own maps each of the SoftCAM models. Every map
    is of the class that the settings name, of the explained model, and deletion and insertion follow that model's
    probability of it. Where the manifest has masks or boxes, localisation is measured on the images whose label the
    model found.

    Args:
        models: The models.
        manifest: The images.
        predictions: Which images could be read, their labels and patients.
        settings: Methods, sizes, points, fills and seeds.
        kept: Where what is measured of each batch is kept, and taken from if it is there; None for nowhere.
        progress: Told after each method and batch, with stage "explain".

    Raises:
        ExportError: If a model cannot be compiled for the engine.
        RunError: If the settings do not fit the models; see `plan_entries`.
        ValueError: Likewise.
    """
    kept, entries = kept or Kept(), plan_entries(models, settings)
    among = _of_labels(predictions, models.classes, settings.explained_labels)
    strata = to_strata(predictions.targets)
    chosen = among[draw_stratified(strata[among], settings.explained, seed=settings.seed)]
    slow = chosen[draw_stratified(strata[chosen], settings.explained_slowly, seed=settings.seed)]
    rows = [int(row) for row in predictions.rows[chosen]]
    located = has_truth(manifest, rows)
    metrics = list_metrics(settings, located=located)
    # Methods of cost "many" explain a part of the images.
    wanted = {"many": np.isin(chosen, slow)}
    everything = np.ones(len(chosen), dtype=np.bool_)
    table = [Scores(entry, wanted.get(entry.method.cost, everything), metrics, settings) for entry in entries]
    done, steps = 0, -(-len(rows) // settings.batch_size) * len(table)
    failures, known = list[Failure](), False
    for places, current in _read_rounds(models, manifest, rows, settings, located=located):
        failures += current.findings.failures
        known = known or bool(current.findings.truth)
        for scores in table:
            current.explain(scores, places, kept)
            done += 1
            if progress is not None:
                progress("explain", done, steps)
    if located and not known:
        metrics = _forget_localization(table, settings)
    groups = None if predictions.patients is None else predictions.patients[chosen]
    return Comparison(
        benchmark=_tabulate(table, metrics, groups, settings),
        values=_list_values(table, [manifest.cell(row, "image") for row in rows], groups),
        curves=_tabulate_curves(table, groups, settings, total=_count_patches(models, settings)),
        differences=_difference_from_reference(table, metrics, groups, settings),
        seconds={scores.entry.name: scores.seconds / scores.explained for scores in table if scores.explained},
        undefined={scores.entry.name: scores.reason for scores in table if scores.reason},
        images=chosen,
        slow_images=slow,
        failures=tuple(failures),
    )


def _read_rounds(
    models: Contestants, manifest: Manifest, rows: Sequence[int], settings: EvaluationSettings, *, located: bool
) -> Iterator[tuple[Indices, Round]]:
    """Yield the places of a batch's images among all rows, and the round in which all methods explain them.

    Images, findings and maps live as long as their round: memory does not depend on the number of rows.
    """
    engines, labels = Engines(models.networks, settings.engine), manifest.targets.astype(np.int64)
    side = models.preprocessing.size if located else None
    place = {row: position for position, row in enumerate(rows)}
    for batch in read_batches(manifest, rows, models.preprocessing, batch_size=settings.batch_size):
        findings = read_findings(manifest, batch.rows, models.preprocessing, side=side)
        places = np.asarray([place[int(row)] for row in batch.rows], dtype=np.int64)
        yield places, Round(models, engines, batch, settings, findings, torch.from_numpy(labels[batch.rows]))


def _forget_localization(table: Sequence[Scores], settings: EvaluationSettings) -> dict[str, str]:
    """Drop the columns of localisation, as not one of the masks could be read, and return the metrics that are left."""
    metrics = list_metrics(settings)
    for scores in table:
        scores.values = {name: values for name, values in scores.values.items() if name in metrics}
    return metrics


def _of_labels(predictions: Predictions, classes: Sequence[str], labels: Sequence[str]) -> Indices:
    """Return the positions of images with one of the labels; of all images if none are named."""
    chosen = [classes.index(label) for label in labels]
    if not labels:
        return np.arange(len(predictions))
    return np.flatnonzero(has_label(predictions.targets, chosen)).astype(np.int64)


def _count_patches(models: Contestants, settings: EvaluationSettings) -> int:
    side = models.preprocessing.size
    return count_patches((side, side), settings.patch_side(side))


def _check_patches(models: Contestants, settings: EvaluationSettings) -> None:
    most, side = _count_patches(models, settings), models.preprocessing.size
    if "curves" in settings.measures and settings.points[-1] > most:
        raise RunError(
            f"Expected `points` to be at most the {most} patches of an image, but got {settings.points[-1]}. "
            "Take a smaller `patch` or fewer points."
        )
    if "infidelity" in settings.measures and 2 * settings.patch_side(side) > side:
        raise RunError(
            f"Expected `patch` to be at most half of the input's {side} px for infidelity, but got "
            f"{settings.patch_side(side)}. Take a smaller `patch`."
        )


def _list_values(table: Sequence[Scores], images: Sequence[str], groups: NDArray[np.object_] | None) -> pd.DataFrame:
    names = np.asarray(images, dtype=object)
    parts = []
    for scores in table:
        some = scores.wanted
        patients = np.full(int(some.sum()), "", dtype=object) if groups is None else groups[some]
        columns = {name: values[some] for name, values in scores.values.items()}
        parts.append(pd.DataFrame({"image": names[some], "patient": patients, "method": scores.entry.name, **columns}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["image", "patient", "method"])


def _tabulate(
    table: Sequence[Scores],
    metrics: Mapping[str, str],
    groups: NDArray[np.object_] | None,
    settings: EvaluationSettings,
) -> pd.DataFrame:
    columns = ["method", "metric", "direction", "value", "low", "high", "n", "undefined", "model", "layer"]
    rows = []
    for scores in table:
        for metric, direction in metrics.items():
            values = scores.values[metric][scores.wanted]
            found = summarize(values, _of(groups, scores.wanted), settings)
            where = scores.entry.model, scores.entry.layer or ""
            rows.append((scores.entry.name, metric, direction, *found, len(values) - found.n, *where))
    return pd.DataFrame(rows, columns=columns)


def _tabulate_curves(
    table: Sequence[Scores], groups: NDArray[np.object_] | None, settings: EvaluationSettings, *, total: int
) -> pd.DataFrame:
    columns = ["method", "curve", "fill", "patches", "fraction", "probability", "low", "high", "n"]
    rows = []
    for scores in table:
        for (curve, fill), values in scores.curves.items():
            for patches, column in zip(settings.points, values[scores.wanted].T, strict=True):
                found = summarize(column, _of(groups, scores.wanted), settings)
                if found.n:
                    rows.append((scores.entry.name, curve, fill, patches, patches / total, *found))
    return pd.DataFrame(rows, columns=columns)


def _difference_from_reference(
    table: Sequence[Scores],
    metrics: Iterable[str],
    groups: NDArray[np.object_] | None,
    settings: EvaluationSettings,
) -> list[dict[str, Any]]:
    reference = next((scores for scores in table if scores.entry.name == REFERENCE and scores.explained), None)
    if reference is None:
        return []
    records = []
    for scores in table:
        for metric in metrics:
            if scores is not reference and scores.explained:
                pair = scores.values[metric], reference.values[metric]
                found = _paired(*pair, groups, settings)
                records.append({"method": scores.entry.name, "against": REFERENCE, "metric": metric, **found})
    adjusted = holm([record["p"] for record in records]).tolist() if records else []
    return [record | {"p_holm": p} for record, p in zip(records, adjusted, strict=True)]


def _paired(
    values: Floats, reference: Floats, groups: NDArray[np.object_] | None, settings: EvaluationSettings
) -> dict[str, Any]:
    found = paired_bootstrap(values, reference, groups=groups, resamples=settings.resamples, seed=settings.seed)
    return {"difference": found.value, "low": found.low, "high": found.high, "n": found.n, "p": found.p_value}


def _of(groups: NDArray[np.object_] | None, wanted: NDArray[np.bool_]) -> NDArray[np.object_] | None:
    return None if groups is None else groups[wanted]
