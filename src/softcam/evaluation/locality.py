"""How local the evidence of a model is: what its cells react to, and which scale carries the decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.data.manifest import Manifest
from softcam.errors import RunError
from softcam.evaluation.classification import summarize
from softcam.evaluation.images import read_batches
from softcam.evaluation.labels import Floats, to_strata
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subsamples import draw_stratified
from softcam.metrics import effective_receptive_field, near_zero_share
from softcam.metrics.locality import measure_changes, scale_changes
from softcam.nn import SoftCAM


@dataclass(frozen=True, eq=False)
class Question:
    """Images with what is asked of their maps: why the label's class, rather than its strongest rival?

    Args:
        model: In eval mode.
        images: (N, C, H, W), on the model's device.
        classes: (N,) class of the label.
        rivals: (N,) the most probable other class; None where classes are independent and have no rival.
        batch_size: Images in one pass.
    """

    model: SoftCAM
    images: Tensor
    classes: Tensor
    rivals: Tensor | None
    batch_size: int

    def maps(self, images: Tensor, start: int = 0) -> Tensor:
        """Return maps (M, h, w) that answer it, which average to the difference of the logits.

        Args:
            images: (M, C, H, W) in the place of the question's own, from number `start` on.
            start: Number of the first.
        """
        rows = slice(start, start + len(images))
        evidence = self.model.evidence(images.contiguous(memory_format=torch.channels_last))
        if self.rivals is None:
            return evidence.map_of(self.classes[rows])
        return evidence.margin(self.classes[rows], against=self.rivals[rows])

    def split(self) -> Iterator[Question]:
        """Yield the same question of each batch of the images."""
        for start in range(0, len(self.images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            rivals = None if self.rivals is None else self.rivals[rows]
            yield replace(self, images=self.images[rows], classes=self.classes[rows], rivals=rivals)

    def all_maps(self, images: Tensor) -> Tensor:
        """Return maps (N, h, w) without gradients, batch by batch."""
        with torch.no_grad():
            starts = range(0, len(images), self.batch_size)
            return torch.cat([self.maps(images[start : start + self.batch_size], start) for start in starts])


@dataclass(frozen=True, eq=False)
class Locality:
    """What was measured, one row per image.

    Args:
        receptive_field: (N,) radius in pixels around the busiest cell that holds half of the energy of its gradient.
        context_swap: (N, W) how much that cell changes if everything outside of a window is replaced, 0 is local.
        near_zero_share: (N,) share of cells within 1 % of the strongest.
        windows: Sides of the windows in pixels.
        shares: (N, S) for several class evidence layers, what each carries of the decision, from fine to coarse.
    """

    receptive_field: Floats
    context_swap: Floats
    near_zero_share: Floats
    windows: tuple[int, ...]
    shares: Floats


def ask(model: SoftCAM, images: Tensor, targets: Tensor, *, batch_size: int) -> Question:
    """Return the question why images belong to their classes.

    Args:
        model: In eval mode.
        images: (N, C, H, W), on the model's device.
        targets: (N,) class indices; or (N, K) of 0 and 1 where classes are independent, of which the first label is
            asked about, or the first class where an image has none.
        batch_size: Images in one pass.
    """
    if targets.ndim == 2:
        return Question(model, images, targets.argmax(dim=1).to(images.device), None, batch_size)
    classes = targets.to(images.device)
    with torch.no_grad():
        starts = range(0, len(images), batch_size)
        rows = [slice(start, start + batch_size) for start in starts]
        rivals = [model.evidence(images[part]).runner_up(classes[part]) for part in rows]
    return Question(model, images, classes, torch.cat(rivals), batch_size)


def measure_locality(question: Question, *, windows: Sequence[int], seed: int) -> Locality:
    """Measure the cell of each image that says most, for or against.

    Args:
        question: At least two images; each is surrounded by another one.
        windows: Sides in pixels of the windows around the cell.
        seed: Seed of the pairs of images.
    """
    others = question.images.roll(choose_shift(len(question.images), seed), 0)
    return join_batches(zip(question.split(), torch.split(others, question.batch_size), strict=True), windows=windows)


def choose_shift(count: int, seed: int) -> int:
    """Return by how many places images are shifted against those that surround them, from 1 to `count` - 1."""
    return 1 + int(torch.randint(count - 1, (1,), generator=torch.Generator().manual_seed(seed)))


def join_batches(batches: Iterable[tuple[Question, Tensor]], *, windows: Sequence[int]) -> Locality:
    """Measure batch by batch; of each, a few numbers per image are kept.

    Args:
        batches: At least one question of a batch, with the images (N, C, H, W) that surround its own.
        windows: Sides in pixels of the windows around the cell.
    """
    parts = [_measure_batch(question, others, windows) for question, others in batches]
    replaced, changes, fields, near_zero, shares = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return Locality(
        receptive_field=fields.numpy(),
        context_swap=scale_changes(replaced, changes).numpy(),
        near_zero_share=near_zero.numpy(),
        windows=tuple(windows),
        shares=shares.numpy(),
    )


def _measure_batch(question: Question, others: Tensor, windows: Sequence[int]) -> tuple[Tensor, ...]:
    images = question.images
    maps = question.all_maps(images)
    cells = find_busiest(maps)
    return (
        *measure_changes(question.all_maps, images, others, cells, windows=windows),
        effective_receptive_field(question.maps, images, cells),
        near_zero_share(maps).cpu(),
        torch.from_numpy(share_scales(question)),
    )


def find_busiest(maps: Tensor) -> Tensor:
    """Return row and column (N, 2) of the cell that says most in each map (N, h, w), for or against; on the CPU."""
    busiest = maps.abs().flatten(1).argmax(1)
    return torch.stack([busiest // maps.shape[2], busiest % maps.shape[2]], dim=1).cpu()


def share_scales(question: Question) -> Floats:
    """Return what each class evidence layer carries of the decision, (N, S) from fine to coarse; a row adds up to 1.

    A layer's part of the logit difference counts by its size, whatever its sign.

    Args:
        question: The images.
    """
    parts = []
    with torch.no_grad():
        for start in range(0, len(question.images), question.batch_size):
            rows = slice(start, start + question.batch_size)
            logits = torch.stack([scale.logits for scale in question.model.scales(question.images[rows])], dim=1)
            index = torch.arange(len(logits), device=logits.device)
            part = logits[index, :, question.classes[rows]]
            parts.append(part if question.rivals is None else part - logits[index, :, question.rivals[rows]])
    sizes = torch.cat(parts).abs().double()
    shares: Floats = (sizes / sizes.sum(1, keepdim=True)).cpu().numpy()
    return shares


def describe_locality(
    models: Contestants, manifest: Manifest, predictions: Predictions, settings: EvaluationSettings
) -> dict[str, Any]:
    """Return how local the SoftCAM's evidence is on a seeded part of the images, as `metrics.json` holds it.

    `receptive_field` (px), `context_swap` by side of the window (px), and `scales`, one share per class evidence
    layer where there are several; each `value`, `low`, `high`, `n`. Empty if fewer than two images were asked for.

    Args:
        models: The models.
        manifest: The images.
        predictions: Which of them could be read.
        settings: Numbers of images and windows, seeds.
    """
    chosen = draw_stratified(to_strata(predictions.targets), settings.located, seed=settings.seed)
    if len(chosen) < 2:
        return {}
    targets = dict(zip(predictions.rows[chosen].tolist(), torch.from_numpy(predictions.targets[chosen]), strict=True))
    windows, measured = settings.window_sides(models.preprocessing.size), list[int]()
    found = join_batches(_ask_batches(models, manifest, targets, settings, measured), windows=windows)
    return _summarize(found, predictions, np.isin(predictions.rows, measured), settings)


def _ask_batches(
    models: Contestants,
    manifest: Manifest,
    targets: Mapping[int, Tensor],
    settings: EvaluationSettings,
    measured: list[int],
) -> Iterator[tuple[Question, Tensor]]:
    """Yield questions of images with those that surround them, and note which; only one batch is in memory."""
    rows, size = list(targets), settings.batch_size
    around = dict(zip(rows, np.roll(rows, choose_shift(len(rows), settings.seed)).tolist(), strict=True))
    streams = (
        read_batches(manifest, part, models.preprocessing, batch_size=size) for part in (rows, [*around.values()])
    )
    for batch, others in zip(*streams, strict=True):
        place = {int(row): position for position, row in enumerate(others.rows)}
        both = [position for position, row in enumerate(batch.rows.tolist()) if around[row] in place]
        chosen = batch.rows[both].tolist()
        if not chosen:
            continue
        measured += chosen
        asked = torch.stack([targets[row] for row in chosen])
        surround = models.to_device(others.images[[place[around[row]] for row in chosen]])
        yield ask(models.softcam, models.to_device(batch.images[both]), asked, batch_size=size), surround
    if not measured:
        raise RunError("Expected the images of the evaluation to stay where they are, but none could be read again.")


def _summarize(
    found: Locality, predictions: Predictions, measured: NDArray[np.bool_], settings: EvaluationSettings
) -> dict[str, Any]:
    groups = None if predictions.patients is None else predictions.patients[measured]

    def interval(values: Floats) -> dict[str, Any]:
        return summarize(values, groups, settings)._asdict()

    several = found.shares.shape[1] > 1
    return {
        "receptive_field": interval(found.receptive_field),
        "context_swap": {
            str(side): interval(column) for side, column in zip(found.windows, found.context_swap.T, strict=True)
        },
        "scales": [interval(column) for column in found.shares.T] if several else [],
        "images": len(found.receptive_field),
    }
