"""Right and wrong cases, drawn at random rather than picked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.attribution import attribute, get_method
from softcam.data.manifest import Manifest
from softcam.errors import MissingExtraError, UnsupportedModelError
from softcam.evaluation.images import Shown, read_image
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Indices, Predictions, Progress
from softcam.evaluation.result import GalleryCase
from softcam.evaluation.settings import EvaluationSettings
from softcam.predict import decide


def collect_cases(
    models: Contestants,
    manifest: Manifest,
    predictions: Predictions,
    settings: EvaluationSettings,
    *,
    progress: Progress | None = None,
) -> tuple[GalleryCase, ...]:
    """Return right cases, then wrong ones: random, as many of each true class as possible.

    Args:
        models: The models.
        manifest: The images.
        predictions: Of all images.
        settings: How many of each kind, which peers, and the seed.
        progress: Told after each batch, with stage "gallery".
    """
    decided = decide(predictions.probabilities, models.thresholds["softcam"])
    right = decided == predictions.targets
    chosen = [
        *_draw(np.flatnonzero(right), predictions.targets, settings.right, seed=settings.seed),
        *_draw(np.flatnonzero(~right), predictions.targets, settings.wrong, seed=settings.seed),
    ]
    cases: list[GalleryCase] = []
    for start in range(0, len(chosen), settings.batch_size):
        part = np.asarray(chosen[start : start + settings.batch_size], dtype=np.int64)
        cases += _make_cases(models, manifest, predictions, settings, (part, decided[part]))
        if progress is not None:
            progress("gallery", len(cases), len(chosen))
    return tuple(cases)


def _draw(positions: Indices, targets: Indices, count: int, *, seed: int) -> list[int]:
    """Return up to `count` positions, the classes in turn."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(positions)
    labels = targets[shuffled]
    # How many of its class come before each image: sorting by it takes the classes in turn.
    turn = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    return [int(position) for position in shuffled[np.lexsort((labels, turn))][:count]]


def _make_cases(
    models: Contestants,
    manifest: Manifest,
    predictions: Predictions,
    settings: EvaluationSettings,
    chosen: tuple[Indices, Indices],
) -> list[GalleryCase]:
    positions, decided = chosen
    rows = [int(row) for row in predictions.rows[positions]]
    shown = [read_image(manifest, row, models.preprocessing) for row in rows]
    images = models.to_device(models.preprocessing.normalize(torch.stack([entry.image for entry in shown])))
    target = torch.from_numpy(decided).to(images.device)
    with torch.no_grad():
        evidence = models.softcam.evidence(images).check(settings.tolerance)
    margin = evidence.margin(target, against=evidence.runner_up(target))
    peers = _explain_by_peers(models, images, target, settings.gallery_methods)
    return [
        GalleryCase(
            image_id=manifest.cell(rows[place], "image"),
            kind="right" if decided[place] == predictions.targets[position] else "wrong",
            label=models.classes[predictions.targets[position]],
            predicted=models.classes[decided[place]],
            classes=models.classes,
            probabilities=_to_numpy(evidence.probabilities()[place]),
            logits=_to_numpy(evidence.logits[place]),
            maps=_to_numpy(evidence.maps[place]),
            margin=_to_numpy(margin[place]),
            pixels=_to_pixels(shown[place]),
            geometry=shown[place].geometry.to_dict(),
            peers={name: _to_numpy(maps[place]) for name, maps in peers.items()},
        )
        for place, position in enumerate(positions)
    ]


def _explain_by_peers(
    models: Contestants, images: Tensor, target: Tensor, methods: tuple[str, ...]
) -> dict[str, Tensor]:
    peers = {}
    for name in methods:
        try:
            peers[name] = attribute(name, models.explained_by(get_method(name)), images, target)
        except (UnsupportedModelError, MissingExtraError):
            # Its absence is reported once, by the comparison of methods.
            continue
    return peers


def _to_pixels(shown: Shown) -> NDArray[np.uint8]:
    image = shown.image if shown.image.shape[0] == 3 else shown.image.expand(3, -1, -1)
    pixels: NDArray[np.uint8] = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return pixels


def _to_numpy(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return array
