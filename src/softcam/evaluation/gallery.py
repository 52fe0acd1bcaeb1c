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
from softcam.evaluation.labels import Indices, agree, choose_explained, decide_labels, to_strata, write_labels
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions, Progress
from softcam.evaluation.result import GalleryCase
from softcam.evaluation.settings import EvaluationSettings


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
    decided = decide_labels(predictions.probabilities, models.thresholds["softcam"])
    right, strata = agree(decided, predictions.targets), to_strata(predictions.targets)
    chosen = [
        *_draw(np.flatnonzero(right), strata, settings.right, seed=settings.seed),
        *_draw(np.flatnonzero(~right), strata, settings.wrong, seed=settings.seed),
    ]
    explained = choose_explained(predictions.probabilities, models.thresholds["softcam"])
    cases: list[GalleryCase] = []
    for start in range(0, len(chosen), settings.batch_size):
        part = np.asarray(chosen[start : start + settings.batch_size], dtype=np.int64)
        cases += _make_cases(models, manifest, predictions, settings, (part, explained[part], right[part]))
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
    chosen: tuple[Indices, Indices, NDArray[np.bool_]],
) -> list[GalleryCase]:
    positions, explained, right = chosen
    rows = [int(row) for row in predictions.rows[positions]]
    shown = [read_image(manifest, row, models.preprocessing) for row in rows]
    images = models.to_device(models.preprocessing.normalize(torch.stack([entry.image for entry in shown])))
    target = torch.from_numpy(explained).to(images.device)
    with torch.no_grad():
        evidence = models.softcam.evidence(images).check(settings.tolerance)
    probabilities, _ = models.uncertainty(evidence)
    margin = evidence.map_of(target)
    if not models.multi_label:
        margin = evidence.margin(target, against=evidence.runner_up(target))
    labels = write_labels(predictions.targets[positions], models.classes)
    peers = _explain_by_peers(models, images, target, settings.gallery_methods)
    return [
        GalleryCase(
            image_id=manifest.cell(rows[place], "image"),
            kind="right" if right[place] else "wrong",
            label=labels[place],
            predicted=models.classes[explained[place]],
            classes=models.classes,
            probabilities=probabilities[place],
            logits=_to_numpy(evidence.logits[place]),
            maps=_to_numpy(evidence.maps[place]),
            margin=_to_numpy(margin[place]),
            pixels=_to_pixels(shown[place]),
            geometry=shown[place].geometry.to_dict(),
            peers={name: _to_numpy(maps[place]) for name, maps in peers.items()},
            multi_label=models.multi_label,
        )
        for place in range(len(positions))
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
