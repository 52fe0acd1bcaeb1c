"""How well maps find what is marked in the image."""

from __future__ import annotations

from torch import Tensor

from softcam.metrics import (
    activation_precision,
    activation_sensitivity,
    localization_precision,
    pixel_auroc,
    pixel_average_precision,
    pointing_game,
    rank_accuracy,
    topk_precision,
)
from softcam.metrics.patches import resize_maps

POINTING_TOLERANCE = 16 / 224
"""Pixels by which the maximum may miss, as a share of the input's side."""

PATCH = 1 / 14
"""Side of a patch as a share of the input's side: 16 px at 224."""

TOP = 3

LOCALIZATION = (
    "pointing_game",
    "pixel_auroc",
    "activation_precision",
    "topk_precision",
    "localization_precision",
    "activation_sensitivity",
    "rank_accuracy",
    "pixel_average_precision",
)
"""Names of the metrics, all of them better if higher."""


def measure_localization(maps: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return the paper's localisation metrics, the pointing game and those of single pixels.

    Args:
        maps: (N, h, w) raw signed maps of the class that the findings belong to, resized bilinearly to the input.
        truth: (N, S, S) bool.

    Returns:
        Metric -> (N,), higher is better, NaN where undefined.
    """
    side = truth.shape[-1]
    resized = resize_maps(maps.double(), (truth.shape[-2], side))
    patch = max(1, round(PATCH * side))
    return {
        "pointing_game": pointing_game(resized, truth, tolerance=POINTING_TOLERANCE * side),
        "pixel_auroc": pixel_auroc(resized, truth),
        "activation_precision": activation_precision(resized, truth),
        "topk_precision": topk_precision(resized, truth, k=TOP, patch=patch)[:, -1],
        "localization_precision": localization_precision(resized, truth, patch=patch),
        "activation_sensitivity": activation_sensitivity(resized, truth),
        "rank_accuracy": rank_accuracy(resized, truth),
        "pixel_average_precision": pixel_average_precision(resized, truth),
    }
