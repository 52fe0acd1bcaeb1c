"""Whether the model really uses what a map marks: remove it, or show it alone, and watch the probability.

`predict` maps (N, C, H, W) images to (N, K) probabilities; it is called without gradients. The probability that is
followed is always that of the same class, never of the class that happens to win after the change.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softcam.metrics.curves import area_under_curve, deletion_curve, insertion_curve
from softcam.metrics.irof import irof
from softcam.metrics.patches import fit_maps
from softcam.metrics.perturbation import Regions, infidelity, sensitivity_n
from softcam.metrics.queries import Predict, check_probabilities
from softcam.metrics.road import Road, road

__all__ = [
    "Predict",
    "Regions",
    "Road",
    "area_under_curve",
    "average_drop",
    "confidence_increase",
    "deletion_curve",
    "highlight",
    "infidelity",
    "insertion_curve",
    "irof",
    "relative_drop",
    "road",
    "sensitivity_n",
]


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
    positive = fit_maps(maps, images).clamp_min(0)
    limit = positive.amax((1, 2), keepdim=True)
    share = torch.where(limit > 0, positive / limit, 0)
    return images * share.unsqueeze(1).to(images)


def _check_pair(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    if before.ndim != 1 or before.shape != after.shape:
        raise ValueError(
            f"Expected `before` and `after` to be (N,) alike, but got {tuple(before.shape)} and {tuple(after.shape)}. "
            "Pass the probability of the same class for each image."
        )
    check_probabilities(before, "before")
    check_probabilities(after, "after")
    return before.detach().double(), after.detach().double()
