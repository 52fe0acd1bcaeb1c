"""Penalties on class evidence maps, added to the classification loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ElasticNet(nn.Module):
    """Lasso plus ridge on the evidence maps: `l1` makes cells zero, `l2` keeps maps small.

    The paper's form is, for each image, `l1 * sum |A| + l2 * sqrt(sum A^2)` over classes and cells, averaged over the
    batch. It grows with the number of cells and classes; `size_free=True` takes means instead of sums, so that a
    strength carries over to other map sizes.

    Args:
        l1: Strength of the absolute values, >= 0.
        l2: Strength of the Euclidean norm of an image's maps (not squared), >= 0.
        size_free: Whether to average over cells and classes instead of summing.

    Reference:
        Djoumessi & Berens, "SoftCAM", MIDL 2026, figure 1.

    Example:
        >>> ElasticNet(l1=0.5, l2=1.0)(torch.tensor([[[[3.0, -4.0]]]])).item()
        8.5
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, *, size_free: bool = False) -> None:
        super().__init__()
        for name, value in (("l1", l1), ("l2", l2)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Expected `{name}` to be a finite number >= 0, but got {value}.")
        self.l1 = float(l1)
        self.l2 = float(l2)
        self.size_free = size_free

    def forward(self, maps: Tensor) -> Tensor:
        """Return the penalty of a batch, a scalar in float32 or finer.

        Args:
            maps: Evidence maps (N, K, *grid) in logit units, of images, signals (N, K, l) or volumes (N, K, d, h, w).

        Raises:
            ValueError: If `maps` has another number of dimensions or holds no image.
        """
        if maps.ndim not in (3, 4, 5) or maps.numel() == 0:
            raise ValueError(
                "Expected `maps` to be a filled batch (N, K, h, w), (N, K, l) or (N, K, d, h, w), "
                f"but got {tuple(maps.shape)}."
            )
        # Half precision overflows when a hundred thousand cells are summed.
        flat = maps.flatten(1) if maps.dtype == torch.float64 else maps.flatten(1).float()
        size = flat.shape[1] if self.size_free else 1
        lasso = flat.abs().sum(1) / size
        ridge = torch.linalg.vector_norm(flat, dim=1) / math.sqrt(size)
        penalty: Tensor = (self.l1 * lasso + self.l2 * ridge).mean()
        return penalty

    def extra_repr(self) -> str:
        """Return the strengths for `repr`."""
        return f"l1={self.l1:g}, l2={self.l2:g}, size_free={self.size_free}"
