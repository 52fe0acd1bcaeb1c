"""What one method's maps are worth on one batch: deletion and insertion curves, their areas, complexity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softcam.evaluation.localization import LOCALIZATION, measure_localization
from softcam.evaluation.settings import EvaluationSettings
from softcam.metrics import (
    FILLS,
    area_under_curve,
    components,
    deletion_curve,
    entropy,
    gini,
    insertion_curve,
    near_zero_share,
    relative_drop,
)
from softcam.metrics.patches import resize_maps

COMPLEXITY: dict[str, Callable[[Tensor], Tensor]] = {
    "gini": gini,
    "entropy": entropy,
    "near_zero_share": near_zero_share,
    "components": components,
}
_LOWER = ("deletion_area", "relative_drop", "entropy", "components")


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with the class that is explained for each image of a batch.

    Args:
        model: Images to logits (N, K).
        images: (N, C, H, W), on the model's device.
        target: (N,) the class the model finds most probable.
        before: (N,) its probability.
        filled: By fill, its probability (N,) once nothing is left of the image.
        truth: (N, S, S) bool where the findings of that class are, if any are known.
    """

    model: nn.Module
    images: Tensor
    target: Tensor
    before: Tensor
    filled: dict[str, Tensor]
    truth: Tensor | None = None

    def predict(self, images: Tensor) -> Tensor:
        """Return probabilities (N, K)."""
        # The fills make new tensors; in another memory format depthwise convolutions are several times slower.
        with torch.no_grad():
            return predict_probabilities(self.model, images)

    def take(self, chosen: Tensor) -> Subject:
        """Return the subject of some images.

        Args:
            chosen: (N,) boolean.
        """
        index = chosen.nonzero()[:, 0].to(self.images.device)
        filled = {name: values[index] for name, values in self.filled.items()}
        truth = None if self.truth is None else self.truth[index.cpu()]
        return Subject(self.model, self.images[index], self.target[index], self.before[index], filled, truth)


@dataclass(frozen=True, eq=False)
class Measured:
    """Values of one method on one batch.

    Args:
        values: By metric, (N,) float64.
        curves: By curve ("deletion", "insertion") and fill, (N, P) probabilities at the settings' points.
    """

    values: dict[str, Tensor]
    curves: dict[tuple[str, str], Tensor]


def choose_subject(model: nn.Module, images: Tensor, fills: tuple[str, ...]) -> Subject:
    """Find the class that a model decides for, and what it says with and without the image.

    Args:
        model: Images to logits (N, K).
        images: (N, C, H, W), on the model's device.
        fills: Names of `softcam.metrics.FILLS`.
    """
    with torch.no_grad():
        before, target = predict_probabilities(model, images).max(dim=1)
        everything = torch.ones((len(images), *images.shape[-2:]), dtype=torch.bool, device=images.device)
        filled = {
            fill: predict_probabilities(model, FILLS[fill](images)(everything)).gather(1, target[:, None])[:, 0]
            for fill in fills
        }
    return Subject(model, images, target, before, filled)


def measure_maps(subject: Subject, maps: Tensor, *, patch: int, settings: EvaluationSettings) -> Measured:
    """Measure raw maps of one batch.

    Areas are those under the probability over the number of patches, the axis scaled to length 1; `relative_drop` is
    the share of the probability that is left at the last point. Complexity is that of the map resized to the input,
    so that methods with coarse and fine maps are measured on the same grid. Where findings are known, the metrics of
    `measure_localization` are among the values.

    Args:
        subject: The model, the images and the classes that the maps are of.
        maps: (N, h, w) raw signed.
        patch: Side of a patch in pixels.
        settings: Points and fills.
    """
    values: dict[str, Tensor] = {}
    curves: dict[tuple[str, str], Tensor] = {}
    for fill in settings.fills:
        removed, shown = follow_curves(subject, maps, patch=patch, points=settings.points, fill=fill)
        curves |= {("deletion", fill): removed, ("insertion", fill): shown}
        values[f"deletion_area_{fill}"] = area_under_curve(removed, settings.points)
        values[f"insertion_area_{fill}"] = area_under_curve(shown, settings.points)
        values[f"relative_drop_{fill}"] = relative_drop(removed[:, 0], removed[:, -1])
    resized = resize_maps(maps.double(), (subject.images.shape[-2], subject.images.shape[-1]))
    values |= {name: metric(resized).cpu() for name, metric in COMPLEXITY.items()}
    if subject.truth is not None:
        values |= measure_localization(maps.cpu(), subject.truth)
    return Measured(values, curves)


def follow_curves(
    subject: Subject, maps: Tensor, *, patch: int, points: tuple[int, ...], fill: str
) -> tuple[Tensor, Tensor]:
    """Return the deletion and the insertion curve, each (N, P) float64 on the CPU.

    Their first points, the whole image and the wholly filled one, are the same for every method and come from the
    subject.

    Args:
        subject: The model, the images and the classes that the maps are of.
        maps: (N, h, w) raw signed.
        patch: Side of a patch in pixels.
        points: Numbers of patches, the first 0.
        fill: Name of a fill.
    """
    images, target = subject.images, subject.target
    removed = deletion_curve(subject.predict, images, maps, target, patch=patch, steps=points[1:], fill=fill)
    shown = insertion_curve(subject.predict, images, maps, target, patch=patch, steps=points[1:], fill=fill)
    starts = subject.before, subject.filled[fill]
    first, second = (
        torch.cat([start.double()[:, None], curve], dim=1).cpu()
        for start, curve in zip(starts, (removed, shown), strict=True)
    )
    return first, second


def list_metrics(fills: tuple[str, ...], *, located: bool = False) -> dict[str, str]:
    """Return the names of all metrics of `measure_maps` and the direction that is good, `higher` or `lower`.

    Args:
        fills: Names of fills.
        located: Whether findings are known.

    Example:
        >>> list_metrics(("mean",))["deletion_area_mean"]
        'lower'
    """
    areas = [f"{kind}_{fill}" for fill in fills for kind in ("deletion_area", "insertion_area", "relative_drop")]
    names = (*(LOCALIZATION if located else ()), *areas, *COMPLEXITY)
    return {name: "lower" if name.startswith(_LOWER) else "higher" for name in names}


def predict_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Return softmax probabilities (N, K) of images (N, C, H, W), run in channels-last layout."""
    logits: Tensor = model(images.contiguous(memory_format=torch.channels_last))
    return logits.softmax(dim=1)
