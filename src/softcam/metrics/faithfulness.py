"""Whether the model really uses what a map marks: remove it, or show it alone, and watch the probability.

`predict` maps (N, C, H, W) images to (N, K) probabilities; it is called without gradients. The probability that is
followed is always that of the same class, never of the class that happens to win after the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from softcam.metrics.fills import Fill, find_fill
from softcam.metrics.inputs import check_maps
from softcam.metrics.patches import paint_patches, rank_patches, resize_maps, score_patches

Predict: TypeAlias = Callable[[Tensor], Tensor]

# Rounding of half-precision probabilities.
_PROBABILITY_TOLERANCE = 1e-3


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


def relative_drop(before: Tensor, after: Tensor) -> Tensor:
    """Share of the target's probability that is left after the change, after / before.

    Args:
        before: (N,) probability of the target on the images.
        after: (N,) probability of the same class after marked pixels are removed.

    Returns:
        (N,) float64, at least 0 and above 1 if the probability rose; lower is better. NaN where `before` is 0.

    Raises:
        ValueError: If shapes are not (N,) and equal, or a value is not a probability.

    >>> relative_drop(torch.tensor([0.8]), torch.tensor([0.2])).item()
    0.25

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748.
    """
    first, second = _check_pair(before, after)
    return (second / first).masked_fill(first == 0, torch.nan)


def average_drop(before: Tensor, after: Tensor) -> Tensor:
    """Share of the target's probability that is lost when only the marked pixels are shown (see `highlight`).

    Args:
        before: (N,) probability of the target on the images.
        after: (N,) probability of the same class on the highlighted images.

    Returns:
        (N,) float64 max(0, before - after) / before in [0, 1], lower is better; NaN where `before` is 0. The mean
        over images is the reference's average drop (there in percent).

    Raises:
        ValueError: If shapes are not (N,) and equal, or a value is not a probability.

    >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6])).tolist()
    [0.75, 0.0]

    Reference: Chattopadhay et al. 2018 (Grad-CAM++), arXiv 1710.11063, section 4.1.
    """
    first, second = _check_pair(before, after)
    return ((first - second).clamp_min(0) / first).masked_fill(first == 0, torch.nan)


def confidence_increase(before: Tensor, after: Tensor) -> Tensor:
    """Whether the target's probability rises when only the marked pixels are shown (see `highlight`).

    Args:
        before: (N,) probability of the target on the images.
        after: (N,) probability of the same class on the highlighted images.

    Returns:
        (N,) float64 of 0 and 1, higher is better; always defined.

    Raises:
        ValueError: If shapes are not (N,) and equal, or a value is not a probability.

    >>> confidence_increase(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6])).tolist()
    [0.0, 1.0]

    Reference: Chattopadhay et al. 2018 (Grad-CAM++), arXiv 1710.11063, section 4.2.
    """
    first, second = _check_pair(before, after)
    return (second > first).double()


def highlight(images: Tensor, maps: Tensor) -> Tensor:
    """Fade images to the data set's mean where a map has no positive evidence.

    Args:
        images: (N, C, H, W) network inputs in normalized space, where 0 is the mean.
        maps: (N, h, w) raw signed maps, resized bilinearly; the positive part is scaled to a maximum of 1. A map
            without positive evidence leaves nothing of its image.

    Returns:
        (N, C, H, W) in the dtype of `images`.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If shapes do not fit or a map is not finite.

    Reference: Chattopadhay et al. 2018 (Grad-CAM++), arXiv 1710.11063, section 4.1.
    """
    positive = _resize(images, maps).clamp_min(0)
    limit = positive.amax((1, 2), keepdim=True)
    share = torch.where(limit > 0, positive / limit, 0)
    return images * share.unsqueeze(1).to(images)


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


def _resize(images: Tensor, maps: Tensor) -> Tensor:
    checked = check_maps(maps)
    if images.ndim != 4 or len(images) != len(checked):
        raise ValueError(
            f"Expected `images` to be ({len(checked)}, C, H, W), one per map, but got {tuple(images.shape)}. "
            "Pass the batch that the maps were made of."
        )
    return resize_maps(checked, (images.shape[2], images.shape[3])).to(images.device)


def _rank(images: Tensor, maps: Tensor, patch: int, counts: tuple[int, ...]) -> Tensor:
    ranks = rank_patches(score_patches(_resize(images, maps), patch))
    available = ranks[0].numel()
    if counts[-1] > available:
        raise ValueError(
            f"Expected `steps` to be at most the {available} patches of side {patch}, but got {counts[-1]}. "
            "Take fewer steps or smaller patches."
        )
    return ranks


def _follow(predict: Predict, batches: Iterable[Tensor], target: Tensor, size: int) -> Tensor:
    if target.shape != (size,) or target.is_floating_point():
        raise ValueError(
            f"Expected `target` to be ({size},) integers, but got {tuple(target.shape)} {target.dtype}. "
            "Pass one class index per image."
        )
    with torch.no_grad():
        columns = [_pick(predict(batch), target) for batch in batches]
    return torch.stack(columns, dim=1)


def _pick(probabilities: Tensor, target: Tensor) -> Tensor:
    if probabilities.ndim != 2 or len(probabilities) != len(target):
        raise ValueError(
            f"Expected `predict` to return ({len(target)}, K), but got {tuple(probabilities.shape)}. "
            "Return one row of probabilities per image."
        )
    if int(target.min()) < 0 or int(target.max()) >= probabilities.shape[1]:
        raise ValueError(
            f"Expected `target` to lie in [0, {probabilities.shape[1]}), but got {int(target.min())} to "
            f"{int(target.max())}. Pass class indices of this model."
        )
    picked = probabilities.double().gather(1, target.long().to(probabilities.device)[:, None])[:, 0]
    _check_range(picked, "predict", "Apply softmax or sigmoid.")
    return picked.clamp(0, 1)


def _check_pair(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    if before.ndim != 1 or before.shape != after.shape:
        raise ValueError(
            f"Expected `before` and `after` to be (N,) alike, but got {tuple(before.shape)} and {tuple(after.shape)}. "
            "Pass the probability of the same class for each image."
        )
    _check_range(before, "before", "Apply softmax or sigmoid.")
    _check_range(after, "after", "Apply softmax or sigmoid.")
    return before.detach().double(), after.detach().double()


def _check_range(values: Tensor, name: str, advice: str) -> None:
    inside = (values >= -_PROBABILITY_TOLERANCE) & (values <= 1 + _PROBABILITY_TOLERANCE)
    if not inside.all():
        raise ValueError(f"Expected `{name}` to give probabilities in [0, 1], but got others or NaN. {advice}")
