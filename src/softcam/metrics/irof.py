"""IROF: iterative removal of features, segment by segment until nothing is left."""

from __future__ import annotations

import torch
from torch import Tensor

from softcam.metrics.fills import Fill, find_fill
from softcam.metrics.inputs import check_positive
from softcam.metrics.patches import fit_maps, order_patches, paint_patches
from softcam.metrics.queries import Predict, ask_probability, check_target


def irof(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    segments: int | Tensor = 16,
    fill: str | float | Fill = "mean",
) -> Tensor:
    """Area over the curve of the target's probability, relative to its first, while all segments go, best first.

    A segment is scored by the mean of the map over it, ties by the segment's number. The reference segments by SLIC;
    regular patches are the default here, which need no further library and no seed. Pass labels for anything else.

    Args:
        predict: (N, C, H, W) to (N, K) probabilities; called once more than there are segments, with all N images.
        images: (N, C, H, W) network inputs.
        maps: (N, h, w) raw signed maps of the target, resized bilinearly.
        target: (N,) class indices.
        segments: Side of regular patches in pixels, or (N, H, W) whole numbers that label each pixel's segment, such
            as those of `skimage.segmentation.slic`. Images may have different numbers of segments.
        fill: What replaces a segment, as in `deletion_curve`; the mean of the data set in the reference.

    Returns:
        (N,) float64, 1 - mean height of p_l / p_0 over l = 0, …, L removed segments (trapezoid rule): at most 1, below
        0 if the probability rose, higher is better; NaN where the probability is 0 from the beginning.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If shapes do not fit, a map is not finite, a target is not a class, `segments` is neither a side of
            at least 1 nor (N, H, W) whole numbers, `fill` is unknown, or `predict` returns no probabilities.

    Reference: Rieger & Hansen 2020, arXiv 2003.08747.
    """
    check_target(target, len(images))
    resized = fit_maps(maps, images)
    ranks, counts = _rank_segments(resized, _label_pixels(segments, resized))
    replace = find_fill(fill)(images.detach())
    steps = range(int(counts.max()) + 1)
    curve = torch.stack([ask_probability(predict, replace(ranks < step), target) for step in steps], dim=1)
    first = curve[:, :1]
    # A shorter curve of an image with fewer segments ends where its own segments do.
    area = torch.cumulative_trapezoid(curve / first, dim=1).gather(1, counts.to(curve.device)[:, None] - 1)[:, 0]
    return (1 - area / counts.to(curve.device)).masked_fill(first[:, 0] == 0, torch.nan)


def _label_pixels(segments: int | Tensor, maps: Tensor) -> Tensor:
    """Return each pixel's segment, (N, H, W) whole numbers."""
    if isinstance(segments, int):
        height, width = maps.shape[1:]
        rows, columns = (-(-side // check_positive(segments, "segments")) for side in (height, width))
        grid = torch.arange(rows * columns, device=maps.device).reshape(1, rows, columns)
        return paint_patches(grid, segments, (height, width)).expand_as(maps)
    if segments.shape != maps.shape or segments.is_floating_point():
        raise ValueError(
            f"Expected `segments` to be a side in pixels or {tuple(maps.shape)} integers, but got "
            f"{tuple(segments.shape)} {segments.dtype}. Label the pixels of each network input."
        )
    return segments.to(maps.device)


def _rank_segments(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place (0 = best) of each pixel's segment, (N, H, W), and the number of segments, (N,)."""
    ranks, counts = [], []
    for values, names in zip(maps, labels, strict=True):
        _, index, sizes = torch.unique(names, return_inverse=True, return_counts=True)
        sums = torch.zeros(len(sizes), dtype=values.dtype, device=values.device)
        means = sums.index_add(0, index.flatten(), values.flatten()) / sizes
        ranks.append(order_patches(means[None])[0].argsort()[index])
        counts.append(len(sizes))
    return torch.stack(ranks), torch.tensor(counts, device=maps.device)
