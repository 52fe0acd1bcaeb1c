"""ROAD: remove and debias, the deletion curve of pixels that a linear imputation takes the place of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from softcam.metrics.curves import deletion_curve
from softcam.metrics.fills import NoisyLinearFill
from softcam.metrics.patches import fit_maps
from softcam.metrics.queries import Predict

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Road(NamedTuple):
    """Probability of the target after each share of the pixels is removed, in both orders.

    Args:
        morf: (N, P) float64 in [0, 1], most relevant pixels first; lower is better.
        lerf: (N, P) float64 in [0, 1], least relevant pixels first; higher is better.
    """

    morf: Tensor
    lerf: Tensor

    @property
    def combined(self) -> Tensor:
        """Half of the difference, (N, P) in [-0.5, 0.5]; higher is better, 0 is a map without any order."""
        return (self.lerf - self.morf) / 2


def road(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    seed: int = 0,
) -> Road:
    """Probability of the target while pixels are imputed from their neighbours, in the map's order and against it.

    The imputation hides where pixels were removed, so that the shape of the hole says little about the class. Where
    the reference counts correct decisions, the probability of the same class is followed here. The mean of a curve
    over its points (`.mean(1)`) summarises it.

    Args:
        predict: (N, C, H, W) to (N, K) probabilities; called twice per share with all N images.
        images: (N, C, H, W) network inputs.
        maps: (N, h, w) raw signed maps of the target, resized bilinearly; ties go by position (row by row).
        target: (N,) class indices.
        shares: P shares of the pixels to remove, increasing, in [0, 1]; rounded to whole pixels.
        noise: Standard deviation of the noise on imputed pixels in the unit of the network's input, at least 0.
        seed: Seed of the noise, started anew for each order.

    Returns:
        Both curves and their combination, always defined.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If `shares` do not increase by at least a pixel within [0, 1], or as `deletion_curve` does.

    Reference: Rong et al. 2022, arXiv 2202.00449; combination as in pytorch-grad-cam.
    """
    resized = fit_maps(maps, images)
    counts = _count_pixels(shares, resized[0].numel())
    fill = NoisyLinearFill(noise, seed)
    morf, lerf = (
        deletion_curve(predict, images, order, target, patch=1, steps=counts, fill=fill)
        for order in (resized, -resized)
    )
    return Road(morf, lerf)


def _count_pixels(shares: Sequence[float], pixels: int) -> list[int]:
    inside = bool(shares) and all(0 <= share <= 1 for share in shares)
    counts = [round(share * pixels) for share in shares] if inside else []
    if not counts or sorted(set(counts)) != counts:
        raise ValueError(
            f"Expected `shares` to lie in [0, 1] and to increase by at least one of {pixels} pixels, but got "
            f"{list(shares)}. Pass shares such as (0.1, 0.2, 0.5)."
        )
    return counts
