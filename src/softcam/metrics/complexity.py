"""How simple a map is: sparseness, entropy, empty cells and number of blobs. No mask and no model needed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from softcam.metrics.inputs import check_maps


def gini(maps: Tensor) -> Tensor:
    """Gini sparseness of the absolute values: 0 if all cells are equal, towards 1 if one cell holds everything.

    Args:
        maps: (N, h, w) raw signed maps, any unit.

    Returns:
        (N,) float64 in [0, 1 - 1 / (h w)], higher is sparser; NaN for a map that is 0 everywhere.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong or a value is not finite.

    >>> gini(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])).item()
    0.75

    Reference: Hurley & Rickard 2009, IEEE Trans. Inf. Theory 55:4723; Chalasani et al. 2020, arXiv 1810.06583.
    """
    share, undefined = _shares(maps)
    ordered = share.sort(1).values
    count = ordered.shape[1]
    place = torch.arange(1, count + 1, dtype=torch.float64, device=maps.device)
    # Hurley & Rickard's sum; rounding must not leave [0, 1).
    value = 1 - 2 * (ordered * (count - place + 0.5)).sum(1) / count
    return value.clamp_min(0).masked_fill(undefined, torch.nan)


def entropy(maps: Tensor) -> Tensor:
    """Shannon entropy in nats of the absolute values as shares of their sum.

    Args:
        maps: (N, h, w) raw signed maps, any unit.

    Returns:
        (N,) float64 in [0, ln(h w)], lower is simpler; NaN for a map that is 0 everywhere.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong or a value is not finite.

    >>> entropy(torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])).item()  # ln 2
    0.693147...

    Reference: Bhatt et al. 2020, arXiv 2005.00631, definition 4.
    """
    share, undefined = _shares(maps)
    terms: Tensor = torch.special.entr(share)
    return terms.sum(1).masked_fill(undefined, torch.nan)


def near_zero_share(maps: Tensor, *, tolerance: float = 0.01) -> Tensor:
    """Share of cells whose absolute value is at most `tolerance` times the map's largest.

    Args:
        maps: (N, h, w) raw signed maps, any unit.
        tolerance: Share of the largest absolute value, in [0, 1).

    Returns:
        (N,) float64 in [0, 1), higher is sparser; NaN for a map that is 0 everywhere.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong, a value is not finite, or `tolerance` is out of range.

    >>> near_zero_share(torch.tensor([[[0.0, 0.5], [-100.0, 2.0]]])).item()
    0.5
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"Expected `tolerance` to lie in [0, 1), but got {tolerance}. Try 0.01.")
    magnitude = check_maps(maps).abs().flatten(1)
    limit = magnitude.amax(1, keepdim=True)
    share = (magnitude <= tolerance * limit).double().mean(1)
    return share.masked_fill(limit[:, 0] == 0, torch.nan)


def components(maps: Tensor, *, connectivity: Literal[4, 8] = 8) -> Tensor:
    """Count the connected blobs of cells above half of the map's maximum.

    Args:
        maps: (N, h, w) raw signed maps, any unit; only the positive part can be above half of a positive maximum.
        connectivity: 8 joins cells that touch at a corner, 4 does not.

    Returns:
        (N,) float64, whole numbers of at least 1, lower is simpler; NaN for a map without positive evidence.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong, a value is not finite, or `connectivity` is neither 4 nor 8.

    >>> components(torch.tensor([[[3.0, 0.0, 2.0], [0.0, 0.0, 1.0]]])).item()
    2.0
    """
    if connectivity not in {4, 8}:
        raise ValueError(f"Expected `connectivity` to be 4 or 8, but got {connectivity}. Choose one of them.")
    checked = check_maps(maps)
    limit = checked.amax((1, 2))
    above = (checked > limit[:, None, None] / 2).cpu().numpy()
    structure = ndimage.generate_binary_structure(2, connectivity // 4)
    counts = np.array([ndimage.label(mask, structure)[1] for mask in above], dtype=np.float64)
    return torch.from_numpy(counts).to(maps.device).masked_fill(limit <= 0, torch.nan)


def _shares(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute values as shares of their sum, (N, h w), and where the sum is 0, (N,)."""
    magnitude = check_maps(maps).abs().flatten(1)
    # Scaled by the largest first, so that tiny or huge values neither vanish nor overflow in the sum.
    limit = magnitude.amax(1, keepdim=True)
    scaled = magnitude / limit.clamp_min(torch.finfo(torch.float64).tiny)
    return scaled / scaled.sum(1, keepdim=True).clamp_min(1), limit[:, 0] == 0
