"""Probability of the target while the patches that a map marks are removed, or shown alone, one after another.

`predict` maps (N, C, H, W) images to (N, K) probabilities; it is called without gradients. The probability that is
followed is always that of the same class, never of the class that happens to win after the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from softcam.metrics.fills import Fill, find_fill
from softcam.metrics.patches import fit_maps, paint_patches, rank_patches, score_patches
from softcam.metrics.queries import Predict, ask_probability, check_target


def deletion_curve(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    patch: int,
    steps: int | Sequence[int],
    fill: str | float | Fill = "mean",
) -> Tensor:
    """Probability of the target while the best patches are replaced one after another, best first.

    Maps are resized bilinearly to the input; patches are scored by their mean and all of them are ordered, ties by
    position (row by row). The area under the curve (`area_under_curve`) summarises it.

    Args:
        predict: (N, C, H, W) to (N, K) probabilities; called once per point of the curve with all N images.
        images: (N, C, H, W) network inputs.
        maps: (N, h, w) raw signed maps of the target.
        target: (N,) class indices.
        patch: Side of a patch in pixels. Patches at the far edges may be cut off.
        steps: The number of patches S replaced at most, for the points 0, 1, …, S; or the points themselves, such as
            `range(0, 31, 5)` for fewer forward passes.
        fill: What replaces a patch: "mean" (0 in normalized space), "blur", "noisy_linear" (ROAD), a number, or any
            `softcam.metrics.fills.Fill`.

    Returns:
        (N, S + 1), or one column per given point, float64 in [0, 1]; lower is better (the model used what is gone).

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If shapes do not fit, a map is not finite, a target is not a class, there are fewer patches than
            steps, `fill` is unknown, or `predict` returns anything but (N, K) probabilities.

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748; Petsiuk et al. 2018, arXiv 1806.07421; Samek et al. 2017.
    """
    altered = _alter(images, maps, torch.lt, patch=patch, steps=steps, fill=fill)
    return _follow(predict, altered, target, len(images))


def insertion_curve(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    patch: int,
    steps: int | Sequence[int],
    fill: str | float | Fill = "mean",
) -> Tensor:
    """Probability of the target while the best patches are shown one after another on a filled image, best first.

    Args:
        predict: As in `deletion_curve`.
        images: (N, C, H, W) network inputs.
        maps: (N, h, w) raw signed maps of the target.
        target: (N,) class indices.
        patch: Side of a patch in pixels.
        steps: The number of patches shown at most, or the points themselves, as in `deletion_curve`.
        fill: What stands for patches not shown yet, as in `deletion_curve`.

    Returns:
        (N, S + 1), or one column per given point, float64 in [0, 1]; higher is better (what is shown suffices).

    Raises:
        TypeError: As `deletion_curve`.
        ValueError: As `deletion_curve`.

    Reference: Petsiuk et al. 2018 (RISE), arXiv 1806.07421, section 4.1.
    """
    altered = _alter(images, maps, torch.ge, patch=patch, steps=steps, fill=fill)
    return _follow(predict, altered, target, len(images))


def area_under_curve(curves: Tensor, points: Sequence[float] | None = None) -> Tensor:
    """Area under each curve by the trapezoid rule, the axis scaled to length 1: the mean height.

    Args:
        curves: (N, P) with P >= 2.
        points: The P places on the axis, strictly increasing; evenly spaced if left out.

    Returns:
        (N,) float64 in the curves' range; NaN for a curve that holds NaN.

    Raises:
        ValueError: If there are fewer than two points, or they do not fit or do not increase.

    >>> area_under_curve(torch.tensor([[1.0, 0.5, 0.5]]), points=[0, 1, 4]).item()
    0.5625
    """
    if curves.ndim != 2 or curves.shape[1] < 2:
        raise ValueError(f"Expected `curves` to be (N, P) with P >= 2, but got {tuple(curves.shape)}. Add points.")
    places = torch.arange(curves.shape[1]) if points is None else torch.as_tensor(points)
    axis = places.to(curves.device, torch.float64)
    if axis.shape != curves.shape[1:] or not (axis.diff() > 0).all():
        raise ValueError(
            f"Expected `points` to be {curves.shape[1]} increasing numbers, but got {len(axis)} of shape "
            f"{tuple(axis.shape)}. Pass the places at which the curve was taken."
        )
    return torch.trapezoid(curves.detach().double(), axis, dim=1) / (axis[-1] - axis[0])


def _alter(
    images: Tensor,
    maps: Tensor,
    removed: Callable[[Tensor, int], Tensor],
    *,
    patch: int,
    steps: int | Sequence[int],
    fill: str | float | Fill,
) -> Iterator[Tensor]:
    """Check the arguments, then return one batch per point, made when it is asked for.

    `removed` is given the patches' ranks, 0 for the best, and the point: how many patches are taken as the best.
    """
    counts = _check_counts(steps)
    ranks = _rank(images, maps, patch, counts)
    replace = find_fill(fill)(images.detach())
    size = images.shape[-2], images.shape[-1]
    return (replace(paint_patches(removed(ranks, count), patch, size)) for count in counts)


def _check_counts(steps: int | Sequence[int]) -> tuple[int, ...]:
    counts = tuple(range(steps + 1)) if isinstance(steps, int) else tuple(steps)
    if not counts or counts[0] < 0 or any(b <= a for a, b in pairwise(counts)):
        raise ValueError(
            f"Expected `steps` to be at least 0, or increasing numbers of at least 0, but got {steps}. "
            "Pass how many patches to replace at most, or at which numbers of patches to look."
        )
    return counts


def _rank(images: Tensor, maps: Tensor, patch: int, counts: tuple[int, ...]) -> Tensor:
    ranks = rank_patches(score_patches(fit_maps(maps, images), patch))
    available = ranks[0].numel()
    if counts[-1] > available:
        raise ValueError(
            f"Expected `steps` to be at most the {available} patches of side {patch}, but got {counts[-1]}. "
            "Take fewer steps or smaller patches."
        )
    return ranks


def _follow(predict: Predict, batches: Iterable[Tensor], target: Tensor, size: int) -> Tensor:
    check_target(target, size)
    return torch.stack([ask_probability(predict, batch, target) for batch in batches], dim=1)
