"""The network's input cut into non-overlapping squares, scored by a map and put in order."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from softcam.metrics.inputs import check_maps, check_positive

Score: TypeAlias = Literal["mean", "max"]

# Bilinear weights sum to 1 only up to rounding: patches that agree to this share of the largest score are tied.
_TIE = 1e-12


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, h, w) maps bilinearly to `size` (H, W); maps of that size come back as they are."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


def fit_maps(maps: Tensor, images: Tensor) -> Tensor:
    """Return (N, h, w) maps as float64 (N, H, W) on the device of the (N, C, H, W) images that they are of.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If a map is not finite, or there is not one map per image.
    """
    checked = check_maps(maps)
    if images.ndim != 4 or len(images) != len(checked):
        raise ValueError(
            f"Expected `images` to be ({len(checked)}, C, H, W), one per map, but got {tuple(images.shape)}. "
            "Pass the batch that the maps were made of."
        )
    return resize_maps(checked, (images.shape[2], images.shape[3])).to(images.device)


def count_patches(size: tuple[int, int], patch: int) -> int:
    """Return how many patches of side `patch` cover an input of `size`.

    Patches at the right and lower edge are cut off where the side does not divide the size.

    Args:
        size: Height and width of the input in pixels.
        patch: Side of a patch in pixels, at least 1.

    Raises:
        ValueError: If `patch` is smaller than 1.

    >>> count_patches((224, 224), 15)
    225
    """
    check_positive(patch, "patch")
    return math.ceil(size[0] / patch) * math.ceil(size[1] / patch)


def score_patches(maps: Tensor, patch: int, score: Score = "mean") -> Tensor:
    """Summarise each patch of (N, H, W) maps in one number; cut-off patches count the pixels they have.

    Args:
        maps: (N, H, W) floating point.
        patch: Side of a patch in pixels, at least 1.
        score: "mean" or "max" over the patch's pixels.

    Returns:
        (N, rows, columns).

    Raises:
        ValueError: If `patch` is smaller than 1 or `score` is unknown.
    """
    check_positive(patch, "patch")
    if score == "mean":
        return F.avg_pool2d(maps.unsqueeze(1), patch, ceil_mode=True).squeeze(1)
    if score == "max":
        return F.max_pool2d(maps.unsqueeze(1), patch, ceil_mode=True).squeeze(1)
    raise ValueError(f"Expected `score` to be 'mean' or 'max', but got {score!r}. Choose one of them.")


def order_patches(scores: Tensor) -> Tensor:
    """Return the positions of (N, P) scores from best to worst; ties keep their position in the row-major grid."""
    limit = scores.abs().amax(1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    return torch.argsort(-torch.round(scores / limit / _TIE), dim=1, stable=True)


def rank_patches(scores: Tensor) -> Tensor:
    """Return each patch's place (0 = best) in the order of `order_patches`, in the (N, rows, columns) of `scores`."""
    order = order_patches(scores.flatten(1))
    return torch.argsort(order, dim=1).reshape(scores.shape)


def paint_patches(selected: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Turn (N, rows, columns) chosen patches into an (N, H, W) pixel mask."""
    pixels = selected.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return pixels[:, : size[0], : size[1]]
