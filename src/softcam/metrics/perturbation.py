"""Whether the evidence of a region is what the model's output loses with it, for regions drawn at random."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from softcam.metrics.fills import Fill, find_fill
from softcam.metrics.inputs import check_positive
from softcam.metrics.patches import count_patches, fit_maps, paint_patches
from softcam.metrics.queries import Predict, ask_output, check_target
from softcam.metrics.similarity import correlate

Size = tuple[int, int]


@dataclass(frozen=True)
class Regions:
    """Random regions to remove from images, each image of a batch with draws of its own.

    Args:
        patch: Side of a square in pixels, at least 1.
        samples: How many regions are drawn for each image, at least 1.
        seed: Seed of a generator of its own, started anew for each batch of images.

    Raises:
        ValueError: If `patch` or `samples` is smaller than 1.
    """

    patch: int
    samples: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self.patch, "patch")
        check_positive(self.samples, "samples")

    def draw_squares(self, count: int, size: Size) -> Iterator[Tensor]:
        """Yield masks (count, H, W) of one square each that lies wholly in the image, all places being as likely.

        Raises:
            ValueError: If the square is larger than the image.
        """
        if self.patch > min(size):
            raise ValueError(f"Expected `patch` to be at most {min(size)}, but got {self.patch}. Take smaller squares.")
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.samples):
            down, across = (self._draw_span(count, side, generator) for side in size)
            yield down[:, :, None] & across[:, None, :]

    def draw_subsets(self, count: int, size: Size, patches: int) -> Iterator[Tensor]:
        """Yield masks (count, H, W) of so many of the patches that cut the image up, all subsets being as likely."""
        rows = -(-size[0] // self.patch)
        total = count_patches(size, self.patch)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.samples):
            # A random order of the patches: each takes any place in it with the same chance.
            place = torch.rand(count, total, generator=generator, dtype=torch.float64).argsort(1)
            yield paint_patches((place < patches).reshape(count, rows, -1), self.patch, size)

    def _draw_span(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        start = torch.randint(side - self.patch + 1, (count, 1), generator=generator)
        place = torch.arange(side)
        return (place >= start) & (place < start + self.patch)


def infidelity(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    regions: Regions,
    fill: str | float | Fill = "mean",
    scaled: bool = True,
) -> Tensor:
    """Mean squared error of the evidence in a random square as a forecast of what the output loses without the square.

    The squares are the reference's "square removal". A map is read as an attribution (what each pixel contributes,
    not a gradient), so its sum over the square is the forecast: the reference's product with the change of the input,
    for an attribution divided by that change.

    Args:
        predict: (N, C, H, W) to (N, K) logits, probabilities or any other output; called once more than there are
            samples, with all N images.
        images: (N, C, H, W) network inputs.
        maps: (N, h, w) raw signed maps of the target, resized bilinearly.
        target: (N,) class indices.
        regions: Side, number and seed of the squares; each lies wholly in the image.
        fill: What replaces a square, as in `deletion_curve`.
        scaled: Multiply each map by the factor that makes its error smallest, so that its unit does not matter: class
            evidence *averages* to the logit where other attributions add up to it. Otherwise the map is as it is.

    Returns:
        (N,) float64, at least 0, in the output's unit squared; lower is better; always defined. A map of 0 scores the
        mean squared change, which no scaled map exceeds.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If shapes do not fit, a map is not finite, a target is not a class, a square is larger than the
            image, `fill` is unknown, or `predict` returns anything but finite (N, K).

    Reference: Yeh et al. 2019, arXiv 1901.09392, definition 2.1; scale as in its code.
    """
    resized = _check(images, maps, target)
    squares = regions.draw_squares(len(images), (resized.shape[1], resized.shape[2]))
    forecast, change = _observe(predict, images, resized, target, squares, fill)
    if scaled:
        forecast = forecast * _best_scale(forecast, change)
    return (forecast - change).square().mean(1)


def sensitivity_n(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    sizes: Sequence[int],
    regions: Regions,
    fill: str | float | Fill = "mean",
) -> Tensor:
    """Correlation of the evidence in n random patches with what the output loses without them, for each n.

    The reference removes single pixels (`Regions(patch=1)`); patches reach the scale of lesions and objects with fewer
    samples.

    Args:
        predict: (N, C, H, W) to (N, K) logits, probabilities or any other output; called once per sample and size,
            and once more, with all N images.
        images: (N, C, H, W) network inputs.
        maps: (N, h, w) raw signed maps of the target, resized bilinearly.
        target: (N,) class indices.
        sizes: The P numbers of patches n that are removed together, each from 1 to the number of patches.
        regions: Side of a patch, number of subsets for each n, and seed.
        fill: What replaces a patch, as in `deletion_curve`.

    Returns:
        (N, P) float64 in [-1, 1], higher is better; NaN where all subsets have the same evidence or change the output
        alike, as they do if n is the number of patches.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If `sizes` are out of range, or as `infidelity` does.

    Reference: Ancona et al. 2018, arXiv 1711.06104 (sensitivity-n).
    """
    resized = _check(images, maps, target)
    size = resized.shape[1], resized.shape[2]
    _check_sizes(sizes, count_patches(size, regions.patch))
    columns = []
    for patches in sizes:
        subsets = regions.draw_subsets(len(images), size, patches)
        columns.append(correlate(*_observe(predict, images, resized, target, subsets, fill)))
    return torch.stack(columns, dim=1)


def _check(images: Tensor, maps: Tensor, target: Tensor) -> Tensor:
    resized = fit_maps(maps, images)
    check_target(target, len(images))
    return resized


def _check_sizes(sizes: Sequence[int], available: int) -> None:
    if not sizes or not all(1 <= size <= available for size in sizes):
        raise ValueError(
            f"Expected `sizes` to be numbers from 1 to the {available} patches, but got {list(sizes)}. "
            "Pass how many patches to remove together."
        )


def _observe(
    predict: Predict, images: Tensor, maps: Tensor, target: Tensor, masks: Iterable[Tensor], fill: str | float | Fill
) -> tuple[Tensor, Tensor]:
    """Evidence in each mask and what the output loses without it, both (N, S)."""
    replace = find_fill(fill)(images.detach())
    before = ask_output(predict, images.detach(), target)
    evidence, change = [], []
    for mask in masks:
        removed = mask.to(images.device)
        evidence.append((maps * removed).sum((1, 2)))
        change.append(before - ask_output(predict, replace(removed), target))
    return torch.stack(evidence, dim=1).to(before.device), torch.stack(change, dim=1)


def _best_scale(forecast: Tensor, change: Tensor) -> Tensor:
    """Least-squares factor of each row, (N, 1); 0 for a forecast of nothing, which no factor changes."""
    power = forecast.square().sum(1, keepdim=True)
    return ((forecast * change).sum(1, keepdim=True) / power).masked_fill(power == 0, 0)
