"""Every explanation method on the same images, gathered into tables with intervals and paired differences."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.attribution import Method, attribute, get_method
from softcam.data.manifest import Manifest
from softcam.errors import MissingExtraError, UnsupportedModelError
from softcam.evaluation.classification import summarize
from softcam.evaluation.images import Failure, ImageBatch, read_batches
from softcam.evaluation.kept import Kept, digest_tensors
from softcam.evaluation.measures import Measured, Subject, choose_subject, list_metrics, measure_maps
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Floats, Indices, Predictions, Progress
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subsamples import draw_stratified
from softcam.evaluation.truth import Findings, read_findings
from softcam.metrics import count_patches, holm, paired_bootstrap

REFERENCE = "evidence"
"""The method that all others are compared with."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the methods were found to be worth.

    Args:
        benchmark: One row per method and metric.
        curves: One row per method, curve, fill and point.
        differences: Paired differences, method minus `REFERENCE` on the same images, with Holm-corrected p-values.
        seconds: Seconds per image that the maps alone took, by method.
        undefined: Why a method has no maps, by method.
        images: Positions, among the predictions, of the images that all methods explained.
        slow_images: Those that methods of cost "many" explained.
        failures: Masks that could not be read.
    """

    benchmark: pd.DataFrame
    curves: pd.DataFrame
    differences: list[dict[str, Any]]
    seconds: dict[str, float]
    undefined: dict[str, str]
    images: Indices
    slow_images: Indices
    failures: tuple[Failure, ...] = ()


class _Scores:
    """Values of one method, filled batch by batch; NaN for images that it did not explain."""

    def __init__(
        self, method: Method, wanted: NDArray[np.bool_], metrics: Iterable[str], settings: EvaluationSettings
    ) -> None:
        self.method = method
        self.wanted = wanted
        self.values = {name: np.full(len(wanted), np.nan) for name in metrics}
        size = len(wanted), len(settings.points)
        kinds = [(curve, fill) for curve in ("deletion", "insertion") for fill in settings.fills]
        self.curves = {kind: np.full(size, np.nan) for kind in kinds}
        self.seconds = 0.0
        self.explained = 0
        self.reason = ""

    def add(self, measured: Measured, places: Indices, seconds: float) -> None:
        self.seconds += seconds
        self.explained += len(places)
        for name, values in measured.values.items():
            self.values[name][places] = values.cpu().numpy()
        for kind, curves in measured.curves.items():
            self.curves[kind][places] = curves.cpu().numpy()


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

    Post-hoc methods explain the black box where there is one, SoftCAM's own maps the SoftCAM. Every map is of the class
    that the explained model finds most probable, and deletion and insertion follow that model's probability of it.
    Where the manifest has masks or boxes, localisation is measured on the images whose label the model found.

    Args:
        models: The models.
        manifest: The images.
        predictions: Which images could be read, their labels and patients.
        settings: Methods, sizes, points, fills and seeds.
        kept: Where what is measured of each batch is kept, and taken from if it is there; None for nowhere.
        progress: Told after each method and batch, with stage "explain".
    """
    kept = kept or Kept()
    chosen = draw_stratified(predictions.targets, settings.explained, seed=settings.seed)
    slow = chosen[draw_stratified(predictions.targets[chosen], settings.explained_slowly, seed=settings.seed)]
    rows = [int(row) for row in predictions.rows[chosen]]
    findings = read_findings(manifest, rows, models.preprocessing)
    metrics = list_metrics(settings.fills, located=bool(findings.truth))
    # Methods of cost "many" explain a part of the images.
    wanted = {"many": np.isin(chosen, slow)}
    methods = [get_method(name) for name in settings.methods]
    everything = np.ones(len(chosen), dtype=np.bool_)
    table = [_Scores(method, wanted.get(method.cost, everything), metrics, settings) for method in methods]
    done, steps = 0, -(-len(rows) // settings.batch_size) * len(table)
    place = {row: position for position, row in enumerate(rows)}
    labels = manifest.targets
    for batch in read_batches(manifest, rows, models.preprocessing, batch_size=settings.batch_size):
        places = np.asarray([place[int(row)] for row in batch.rows], dtype=np.int64)
        current = _Round(models, batch, settings, findings, torch.from_numpy(labels[batch.rows]))
        for scores in table:
            current.explain(scores, places, kept)
            done += 1
            if progress is not None:
                progress("explain", done, steps)
    groups = None if predictions.patients is None else predictions.patients[chosen]
    side = models.preprocessing.size
    return Comparison(
        benchmark=_tabulate(table, metrics, groups, settings),
        curves=_tabulate_curves(table, groups, settings, total=count_patches((side, side), settings.patch_side(side))),
        differences=_difference_from_reference(table, metrics, groups, settings),
        seconds={scores.method.name: scores.seconds / scores.explained for scores in table if scores.explained},
        undefined={scores.method.name: scores.reason for scores in table if scores.reason},
        images=chosen,
        slow_images=slow,
        failures=findings.failures,
    )


class _Round:
    """One batch of images, which every method explains in turn."""

    def __init__(
        self,
        models: Contestants,
        batch: ImageBatch,
        settings: EvaluationSettings,
        findings: Findings,
        labels: Tensor,
    ) -> None:
        self.models = models
        self.batch = batch
        self.settings = settings
        self.findings = findings
        self.labels = labels
        self.subjects: dict[int, Subject] = {}

    def explain(self, scores: _Scores, places: Indices, kept: Kept) -> None:
        wanted = torch.from_numpy(scores.wanted[places])
        if scores.reason or not wanted.any():
            return
        inputs, measure = partial(self.digest, wanted), partial(self.measure, scores.method, wanted)
        try:
            measured, seconds = kept.get(scores.method.name, inputs, measure)
        except (UnsupportedModelError, MissingExtraError) as error:
            scores.reason = str(error)
        else:
            scores.add(measured, places[wanted.numpy()], seconds)

    def digest(self, wanted: Tensor) -> str:
        """Return a digest of the batch and of which of its images are wanted."""
        return f"{self.content} {wanted.tolist()}"

    @cached_property
    def content(self) -> str:
        """Digest of images, labels and findings: the same for every method."""
        truth = self.findings.of(self.batch.rows, self.labels, self.labels)
        return digest_tensors((self.batch.images, self.labels, *(() if truth is None else (truth,))))

    def measure(self, method: Method, wanted: Tensor) -> tuple[Measured, float]:
        """Return what the maps are worth and the seconds that they took."""
        subject = self.subject_of(method).take(wanted)
        started = time.perf_counter()
        maps = attribute(method.name, subject.model, subject.images, subject.target)
        seconds = time.perf_counter() - started
        patch = self.settings.patch_side(self.models.preprocessing.size)
        return measure_maps(subject, maps, patch=patch, settings=self.settings), seconds

    def subject_of(self, method: Method) -> Subject:
        model = self.models.explained_by(method)
        if id(model) not in self.subjects:
            subject = choose_subject(model, self.models.to_device(self.batch.images), self.settings.fills)
            truth = self.findings.of(self.batch.rows, self.labels, subject.target)
            self.subjects[id(model)] = replace(subject, truth=truth)
        return self.subjects[id(model)]


def _tabulate(
    table: Sequence[_Scores],
    metrics: Mapping[str, str],
    groups: NDArray[np.object_] | None,
    settings: EvaluationSettings,
) -> pd.DataFrame:
    columns = ["method", "metric", "direction", "value", "low", "high", "n", "undefined"]
    rows = []
    for scores in table:
        for metric, direction in metrics.items():
            values = scores.values[metric][scores.wanted]
            found = summarize(values, _of(groups, scores.wanted), settings)
            rows.append((scores.method.name, metric, direction, *found, len(values) - found.n))
    return pd.DataFrame(rows, columns=columns)


def _tabulate_curves(
    table: Sequence[_Scores], groups: NDArray[np.object_] | None, settings: EvaluationSettings, *, total: int
) -> pd.DataFrame:
    columns = ["method", "curve", "fill", "patches", "fraction", "probability", "low", "high", "n"]
    rows = []
    for scores in table:
        for (curve, fill), values in scores.curves.items():
            for patches, column in zip(settings.points, values[scores.wanted].T, strict=True):
                found = summarize(column, _of(groups, scores.wanted), settings)
                if found.n:
                    rows.append((scores.method.name, curve, fill, patches, patches / total, *found))
    return pd.DataFrame(rows, columns=columns)


def _difference_from_reference(
    table: Sequence[_Scores],
    metrics: Iterable[str],
    groups: NDArray[np.object_] | None,
    settings: EvaluationSettings,
) -> list[dict[str, Any]]:
    reference = next((scores for scores in table if scores.method.name == REFERENCE and scores.explained), None)
    if reference is None:
        return []
    records = []
    for scores in table:
        for metric in metrics:
            if scores is not reference and scores.explained:
                pair = scores.values[metric], reference.values[metric]
                found = _paired(*pair, groups, settings)
                records.append({"method": scores.method.name, "against": REFERENCE, "metric": metric, **found})
    adjusted = holm([record["p"] for record in records]).tolist() if records else []
    return [record | {"p_holm": p} for record, p in zip(records, adjusted, strict=True)]


def _paired(
    values: Floats, reference: Floats, groups: NDArray[np.object_] | None, settings: EvaluationSettings
) -> dict[str, Any]:
    found = paired_bootstrap(values, reference, groups=groups, resamples=settings.resamples, seed=settings.seed)
    return {"difference": found.value, "low": found.low, "high": found.high, "n": found.n, "p": found.p_value}


def _of(groups: NDArray[np.object_] | None, wanted: NDArray[np.bool_]) -> NDArray[np.object_] | None:
    return None if groups is None else groups[wanted]
