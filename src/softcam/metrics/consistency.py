"""Whether the sign of local evidence agrees with the image's label; needs no mask."""

from __future__ import annotations

from torch import Tensor

from softcam.metrics.inputs import check_maps


def positive_share(maps: Tensor) -> Tensor:
    """Share of cells with evidence for the class (> 0), for the disease maps of images with the disease.

    A cell at exactly 0 speaks neither for nor against and counts as neither.

    Args:
        maps: (N, h, w) raw signed maps in logit units.

    Returns:
        (N,) float64 in [0, 1]; defined for every map. Higher is more consistent for images of the class, but a
        lesion that fills few cells rightly gives a small share: compare models on the same images.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong or a value is not finite.

    >>> import torch
    >>> positive_share(torch.tensor([[[1.0, -1.0], [0.0, 2.0]]])).item()
    0.5

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748 (local-to-global consistency).
    """
    return (check_maps(maps) > 0).double().mean((1, 2))


def negative_share(maps: Tensor) -> Tensor:
    """Share of cells with evidence against the class (< 0), for the disease maps of healthy images.

    A cell at exactly 0 speaks neither for nor against and counts as neither.

    Args:
        maps: (N, h, w) raw signed maps in logit units.

    Returns:
        (N,) float64 in [0, 1], higher is more consistent for healthy images; defined for every map.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong or a value is not finite.

    >>> import torch
    >>> negative_share(torch.tensor([[[1.0, -1.0], [0.0, 2.0]]])).item()
    0.25

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748 (local-to-global consistency).
    """
    return (check_maps(maps) < 0).double().mean((1, 2))
