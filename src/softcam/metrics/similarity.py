"""How alike two maps are: by the order of their cells, or by their structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from softcam.metrics.inputs import check_maps

Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_WINDOW = 7
# Values that differ by less than this share of the largest do so by rounding.
_ROUNDING = 1e-12


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation of the cells of two maps, ties sharing their mean rank.

    Args:
        first: (N, h, w) raw signed maps, any unit.
        second: (N, h, w) maps to compare with, any unit.

    Returns:
        (N,) float64 in [-1, 1], 1 for the same order; NaN where a map is constant.

    Raises:
        TypeError: If a map is not floating point.
        ValueError: If the shapes differ or a value is not finite.

    >>> spearman(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[1.0, 4.0, 9.0]]])).item()
    1.0

    Reference: Spearman 1904, American Journal of Psychology 15:72.
    """
    return correlate(*(_rank(maps.flatten(1).contiguous()) for maps in _check_pair(first, second)))


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean structural similarity of two maps in windows of 7x7 cells.

    Each map is scaled to a largest absolute value of 1 and shifted into [0, 1], 0 becoming 0.5: with signs of their
    own, brightness and structure of a negated map would both turn over, and it would pass for similar. Windows are
    uniform and lie wholly in the map; covariances are those of a sample.

    Args:
        first: (N, h, w) raw signed maps, any unit, sides of at least 7.
        second: (N, h, w) maps to compare with, any unit.

    Returns:
        (N,) float64 in [-1, 1], 1 for maps that differ by a positive factor only; NaN where a map is 0 everywhere.

    Raises:
        TypeError: If a map is not floating point.
        ValueError: If the shapes differ, a side is shorter than 7 or a value is not finite.

    Reference: Wang et al. 2004, IEEE Trans. Image Processing 13:600, equation 13.
    """
    pair = _check_pair(first, second)
    if min(first.shape[1:]) < _WINDOW:
        raise ValueError(
            f"Expected maps to have sides of at least {_WINDOW}, but got {tuple(first.shape)}. "
            "Resize them to the network's input, or compare by 'spearman'."
        )
    a, b = ((1 + maps / maps.abs().amax((1, 2), keepdim=True)) / 2 for maps in pair)
    mean_a, mean_b = _smooth(a), _smooth(b)
    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    spread = sample * (_smooth(a * a) - mean_a**2 + _smooth(b * b) - mean_b**2)
    shared = sample * (_smooth(a * b) - mean_a * mean_b)
    light, contrast = 0.01**2, 0.03**2
    brightness = (2 * mean_a * mean_b + light) / (mean_a**2 + mean_b**2 + light)
    return (brightness * (2 * shared + contrast) / (spread + contrast)).mean((1, 2))


SIMILARITIES: dict[str, Similarity] = {"spearman": spearman, "ssim": structural_similarity}


def find_similarity(similarity: str | Similarity) -> Similarity:
    """Return the similarity of a name in `SIMILARITIES`, or the function itself.

    Raises:
        ValueError: If the name is unknown.
    """
    if not isinstance(similarity, str):
        return similarity
    if similarity not in SIMILARITIES:
        raise ValueError(
            f"Expected `similarity` to be one of {sorted(SIMILARITIES)}, but got {similarity!r}. Or pass a function."
        )
    return SIMILARITIES[similarity]


def correlate(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of the rows of two (N, M) float64 tensors, (N,); NaN where a row is constant."""
    (a, flat_a), (b, flat_b) = _center(first), _center(second)
    value: Tensor = (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()
    return value.clamp(-1, 1).masked_fill(flat_a | flat_b, torch.nan)


def _center(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows less their mean, scaled to a largest absolute value of 1, and whether nothing but rounding is left."""
    centered = rows - rows.mean(1, keepdim=True)
    limit = centered.abs().amax(1, keepdim=True)
    flat = limit <= _ROUNDING * rows.abs().amax(1, keepdim=True)
    # Scaled, so that squares of tiny or huge values neither vanish nor overflow.
    return centered / limit.masked_fill(flat, 1), flat[:, 0]


def _rank(rows: Tensor) -> Tensor:
    """Ranks from 0 within each row of (N, M), ties sharing their mean rank."""
    ordered = rows.sort(1).values
    below = torch.searchsorted(ordered, rows)
    upto = torch.searchsorted(ordered, rows, right=True)
    return (below + upto - 1).double() / 2


def _smooth(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps[:, None], _WINDOW, stride=1)[:, 0]


def _check_pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape != second.shape:
        raise ValueError(
            f"Expected both maps to be of one shape, but got {tuple(first.shape)} and {tuple(second.shape)}. "
            "Compare maps of the same images."
        )
    return check_maps(first), check_maps(second).to(first.device)
