"""How local the evidence of a model is: what its cells react to, and which scale carries the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softcam.data.manifest import Manifest
from softcam.evaluation.classification import summarize
from softcam.evaluation.images import read_batches
from softcam.evaluation.labels import Floats, to_strata
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.subsamples import draw_stratified
from softcam.metrics import context_swap_change, effective_receptive_field, near_zero_share
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
    images, size = question.images, question.batch_size
    maps = question.all_maps(images)
    cells = find_busiest(maps)
    shift = 1 + int(torch.randint(len(images) - 1, (1,), generator=torch.Generator().manual_seed(seed)))
    swapped = context_swap_change(question.all_maps, images, images.roll(shift, 0), cells, windows=tuple(windows))
    fields = [
        effective_receptive_field(
            lambda part, start=start: question.maps(part, start),  # type: ignore[misc]
            images[start : start + size],
            cells[start : start + size],
        )
        for start in range(0, len(images), size)
    ]
    return Locality(
        receptive_field=torch.cat(fields).numpy(),
        context_swap=swapped.numpy(),
        near_zero_share=near_zero_share(maps).cpu().numpy(),
        windows=tuple(windows),
        shares=share_scales(question),
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
    rows = [int(row) for row in predictions.rows[chosen]]
    batches = read_batches(manifest, rows, models.preprocessing, batch_size=settings.batch_size)
    images = models.to_device(torch.cat([batch.images for batch in batches]))
    targets = torch.from_numpy(predictions.targets[chosen])
    question = ask(models.softcam, images, targets, batch_size=settings.batch_size)
    windows = settings.window_sides(models.preprocessing.size)
    found = measure_locality(question, windows=windows, seed=settings.seed)
    groups = None if predictions.patients is None else predictions.patients[chosen]

    def interval(values: Floats) -> dict[str, Any]:
        return summarize(values, groups, settings)._asdict()

    several = found.shares.shape[1] > 1
    return {
        "receptive_field": interval(found.receptive_field),
        "context_swap": {
            str(side): interval(column) for side, column in zip(windows, found.context_swap.T, strict=True)
        },
        "scales": [interval(column) for column in found.shares.T] if several else [],
        "images": len(rows),
    }
