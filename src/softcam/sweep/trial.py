"""One model of a search: trained, measured on validation images, and what was measured kept beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softcam.data import Manifest
from softcam.errors import DivergenceError, RunError
from softcam.evaluation.labels import Floats, Indices
from softcam.evaluation.locality import Question, ask
from softcam.evaluation.models import Contestants, load_contestants
from softcam.evaluation.predictions import predict_images
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subjects import to_probabilities
from softcam.files import write_atomic
from softcam.metrics import area_under_curve, deletion_curve, gini, near_zero_share
from softcam.metrics.patches import resize_maps
from softcam.runs import plain
from softcam.sweep.maps import average, draw_sample
from softcam.sweep.space import Point
from softcam.training import Recipe, train

MEASURED = "measured.json"
POINTS = EvaluationSettings.points
TOLERANCE = EvaluationSettings.tolerance


@dataclass(frozen=True)
class Lens:
    """What decides how models are measured.

    Args:
        located: Validation images on which maps are measured, >= 1: those with ground truth, where there are any.
        fills: What replaces patches in deletion, names of `softcam.metrics.FILLS`.
        batch_size: Images in one forward pass, >= 1.
        seed: Seed of the choice of images.
    """

    located: int
    fills: tuple[str, ...]
    batch_size: int
    seed: int


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured of one model.

    Args:
        point: Which model.
        model_path: Its bundle.
        rows: (N,) positions in the validation split of the images that could be read.
        probabilities: (N, K).
        values: Per metric (M,) numbers, one per image on which maps were measured; NaN where undefined.
        grid: Cells of a map.
        map_stride: Input pixels from one cell to the next.
        seconds: Training time.
    """

    point: Point
    model_path: Path
    rows: Indices
    probabilities: Floats
    values: Mapping[str, Floats]
    grid: tuple[int, ...]
    map_stride: tuple[int, ...]
    seconds: float

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the images for which it is defined."""
        return average(self.values[metric])


@dataclass(frozen=True)
class Failure:
    """A model that could not be trained.

    Args:
        point: Which model.
        reason: Why.
    """

    point: Point
    reason: str


@dataclass(frozen=True, eq=False)
class Trials:
    """What all models of a search have in common; it goes to the processes that train them.

    Args:
        recipe: Everything that a point does not say.
        folder: Where the runs are.
        cache: Where features of frozen trunks are.
        manifest: Table of images.
        digest: Of that table.
        lens: How models are measured.
        images: One image (1, C, H, W) of the size that is used, by backbone.
        progress: Whether progress is shown on stderr.
    """

    recipe: Recipe
    folder: Path
    cache: Path
    manifest: Manifest
    digest: str
    lens: Lens
    images: Mapping[str, Tensor] = field(default_factory=dict)
    progress: bool = True

    def recipe_of(self, point: Point) -> Recipe:
        """Return how the model of a point is trained."""
        return point.recipe(self.recipe, self.images[point.form.backbone])

    def run(self, point: Point) -> Measurement | Failure:
        """Train and measure a model; what is done already is taken from its folder.

        Args:
            point: Which model.

        Raises:
            RunError: If the folder holds a run of another recipe or of other data.
        """
        folder = self.folder / point.name
        try:
            run = train(
                self.recipe_of(point), folder, manifest=self.manifest, cache_dir=self.cache, progress=self.progress
            )
        except DivergenceError as error:
            return Failure(point, str(error))
        models = load_contestants(run.model_path, None, self.manifest.subset("val"), device=None)
        identity = self._identify(models)
        found = _read(folder / MEASURED, identity)
        if found is None:
            found = self._measure(models)
            write_atomic(folder / MEASURED, json.dumps({"identity": identity, **found}, allow_nan=False) + "\n")
        report = models.softcam.conversion
        return Measurement(
            point=point,
            model_path=run.model_path,
            rows=np.asarray(found["rows"], dtype=np.int64),
            probabilities=np.asarray(found["probabilities"], dtype=np.float64),
            values={name: np.asarray(values, dtype=np.float64) for name, values in found["values"].items()},
            grid=report.grid,
            map_stride=report.map_stride,
            seconds=run.seconds,
        )

    def _identify(self, models: Contestants) -> dict[str, Any]:
        lens = self.lens
        values = [lens.located, list(lens.fills), lens.batch_size, lens.seed]
        return {"model": models.config.fingerprint, "data": self.digest, "lens": values}

    def _measure(self, models: Contestants) -> dict[str, Any]:
        validation, lens = self.manifest.subset("val"), self.lens
        predictions = predict_images(models, validation, batch_size=lens.batch_size, tolerance=TOLERANCE)
        sample = draw_sample(validation, predictions.rows, models.preprocessing, count=lens.located, seed=lens.seed)
        question = ask(models.softcam, models.to_device(sample.images), sample.targets, batch_size=lens.batch_size)
        maps = question.all_maps(question.images)
        values = {
            **_describe(maps, sample.images),
            **_delete(question, lens.fills, multi_label=models.multi_label),
            **sample.localize(maps),
        }
        found = {"rows": predictions.rows, "probabilities": predictions.probabilities}
        return dict(plain({**found, "values": {name: item.cpu().numpy() for name, item in values.items()}}))


def _describe(maps: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Return how sparse maps (M, h, w) are on the input's grid, so that fine and coarse ones compare, and how large."""
    resized = resize_maps(maps.double(), (images.shape[-2], images.shape[-1]))
    return {
        "gini": gini(resized),
        "near_zero_share": near_zero_share(resized),
        "evidence": maps.abs().double().mean((1, 2)),
    }


def _delete(question: Question, fills: tuple[str, ...], *, multi_label: bool) -> dict[str, Tensor]:
    """Return the areas under deletion curves of the label's probability."""

    def predict(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = question.model(images.contiguous(memory_format=torch.channels_last))
        return to_probabilities(logits, multi_label=multi_label)

    patch = EvaluationSettings().patch_side(question.images.shape[-1])
    found: dict[str, list[Tensor]] = {f"deletion_area_{fill}": [] for fill in fills}
    for part in question.split():
        maps = part.all_maps(part.images)
        for fill in fills:
            curve = deletion_curve(predict, part.images, maps, part.classes, patch=patch, steps=POINTS, fill=fill)
            found[f"deletion_area_{fill}"].append(area_under_curve(curve, POINTS))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _read(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what was measured of the same model in the same way, if it was."""
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        same = record["identity"] == identity
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"Expected {path} to hold what a search measured, but it is damaged. Remove it.") from error
    return record if same else None
