"""How well a map finds the ground truth: lesion masks or boxes, in the geometry of the network's input.

All functions take `maps` (N, H, W), one class's raw signed map resized to the input, and `masks` (N, H, W) of 0 and 1.
They return float64, NaN for an image whose mask is empty or where the map selects nothing to judge.
They raise TypeError if maps are not floating point, and ValueError if shapes differ, a map is not finite or a mask is
not binary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from softcam.metrics import weighted
from softcam.metrics.inputs import check_maps, check_masks, check_positive
from softcam.metrics.patches import Score, order_patches, score_patches


def topk_precision(maps: Tensor, masks: Tensor, *, k: int, patch: int, score: Score = "mean") -> Tensor:
    """Share of the best 1, …, k positive patches that contain ground truth.

    Patches are ordered by score, ties by position (row by row). Where fewer than j patches are positive, the share is
    that of the positive ones. The mean over the curve is the summary.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.
        k: Length of the curve, at least 1; 30 in the paper.
        patch: Side of a patch in pixels; 33 at 512 px in the paper. Patches at the far edges may be cut off.
        score: Patch score, "mean" as in the paper or "max" as in its code.

    Returns:
        (N, k) in [0, 1], higher is better; NaN for an empty mask or a map without a positive patch.

    Raises:
        ValueError: If `k` or `patch` is smaller than 1 or `score` is unknown.

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748 (top-k localization precision).
    """
    check_positive(k, "k")
    scores, hits = _patches(maps, masks, patch, score)
    order = order_patches(scores)
    positive = (scores > 0).gather(1, order).double()
    found = (hits.gather(1, order) * positive).cumsum(1)
    curve = found / positive.cumsum(1)
    # Asking for more patches than there are adds none.
    curve = curve[:, torch.arange(k, device=curve.device).clamp_max(curve.shape[1] - 1)]
    return curve.masked_fill(~masks.to(curve.device).bool().flatten(1).any(1, keepdim=True), torch.nan)


def localization_precision(maps: Tensor, masks: Tensor, *, patch: int, score: Score = "mean") -> Tensor:
    """Share of all positive patches that contain ground truth.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.
        patch: Side of a patch in pixels. Patches at the far edges may be cut off.
        score: Patch score, "mean" or "max".

    Returns:
        (N,) in [0, 1], higher is better; NaN for an empty mask or a map without a positive patch.

    Raises:
        ValueError: If `patch` is smaller than 1 or `score` is unknown.

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748 (overall localization precision).
    """
    scores, hits = _patches(maps, masks, patch, score)
    positive = (scores > 0).double()
    share = (hits * positive).sum(1) / positive.sum(1)
    return _undefined_if_empty(share, hits)


def activation_precision(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the positive evidence that lies inside the ground truth.

    Also known as relevance mass accuracy and as the energy-based pointing game.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.

    Returns:
        (N,) in [0, 1], higher is better; NaN for an empty mask or a map without positive evidence.

    >>> maps, masks = torch.tensor([[[3.0, 1.0, -5.0]]]), torch.tensor([[[1, 0, 1]]])
    >>> activation_precision(maps, masks).item()
    0.75

    Reference: Arras et al. 2022, arXiv 2003.07258, equation 2; Wang et al. 2020, arXiv 1910.01279, section 4.3.
    """
    energy, truth = _energy(maps, masks)
    return _undefined_if_empty((energy * truth).sum(1) / energy.sum(1), truth)


def activation_sensitivity(maps: Tensor, masks: Tensor) -> Tensor:
    """Mean positive evidence inside the ground truth, the map scaled to a maximum of 1.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.

    Returns:
        (N,) in [0, 1], higher is better; NaN for an empty mask or a map without positive evidence.

    >>> maps, masks = torch.tensor([[[4.0, 1.0, -5.0]]]), torch.tensor([[[0, 1, 1]]])
    >>> activation_sensitivity(maps, masks).item()
    0.125

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748 (activation sensitivity).
    """
    energy, truth = _energy(maps, masks)
    return (energy * truth).sum(1) / truth.sum(1)


def rank_accuracy(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the ground truth among as many best pixels as the ground truth has.

    Only pixels with positive evidence are selected; ties go by position (row by row).

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.

    Returns:
        (N,) in [0, 1], higher is better; NaN for an empty mask or a map without positive evidence.

    >>> maps, masks = torch.tensor([[[4.0, 1.0, 2.0]]]), torch.tensor([[[1, 1, 0]]])
    >>> rank_accuracy(maps, masks).item()
    0.5

    Reference: Arras et al. 2022, arXiv 2003.07258, equation 3.
    """
    energy, truth = _energy(maps, masks)
    size = truth.sum(1)
    hits = (truth > 0) & (energy > 0) & _best(energy, size)
    return (hits.sum(1) / size).masked_fill(energy[:, 0].isnan(), torch.nan)


def pointing_game(maps: Tensor, masks: Tensor, *, tolerance: float = 0) -> Tensor:
    """Whether the map's maximum lies within `tolerance` pixels of the ground truth.

    Of several equal maxima the first by position (row by row) points.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.
        tolerance: Largest Euclidean distance in pixels that still is a hit, at least 0; 15 in the reference.

    Returns:
        (N,) of 0 and 1, higher is better; NaN for an empty mask or a constant map, which points nowhere.

    Raises:
        ValueError: If `tolerance` is negative.

    >>> maps, masks = torch.tensor([[[4.0, 1.0, 2.0]]]), torch.tensor([[[0, 0, 1]]])
    >>> pointing_game(maps, masks).item(), pointing_game(maps, masks, tolerance=2).item()
    (0.0, 1.0)

    Reference: Zhang et al. 2018, arXiv 1608.00507, section 4.2.
    """
    if not tolerance >= 0:
        raise ValueError(f"Expected `tolerance` to be at least 0 pixels, but got {tolerance}. Try 0 or 15.")
    checked = check_maps(maps)
    truth = check_masks(masks, checked)
    flat = checked.flatten(1)
    peak = flat.argmax(1)
    rows, columns = (torch.arange(side, device=maps.device) for side in checked.shape[1:])
    down = (rows - (peak // checked.shape[2])[:, None]) ** 2
    across = (columns - (peak % checked.shape[2])[:, None]) ** 2
    near = down[:, :, None] + across[:, None, :] <= tolerance**2
    hit = (near & truth).flatten(1).any(1).double()
    return _undefined_if_empty(hit, truth.flatten(1)).masked_fill(flat.amax(1) == flat.amin(1), torch.nan)


def iou(maps: Tensor, masks: Tensor, *, threshold: float) -> Tensor:
    """Intersection over union of the pixels above a threshold and the ground truth.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.
        threshold: In the unit of the maps, chosen on validation data; pixels above it are selected.

    Returns:
        (N,) in [0, 1], higher is better; NaN for an empty mask. A map nowhere above the threshold misses the ground
        truth and scores 0.

    >>> maps, masks = torch.tensor([[[4.0, 1.0, 2.0]]]), torch.tensor([[[1, 1, 0]]])
    >>> round(iou(maps, masks, threshold=1.5).item(), 4)
    0.3333

    Reference: Jaccard 1912, New Phytologist 11:37.
    """
    checked = check_maps(maps)
    truth = check_masks(masks, checked).flatten(1)
    selected = checked.flatten(1) > threshold
    both = (selected & truth).sum(1).double()
    return _undefined_if_empty(both / (selected | truth).sum(1), truth)


def pixel_auroc(maps: Tensor, masks: Tensor) -> Tensor:
    """AUROC of an image's pixels: the chance that a pixel of the ground truth scores above one outside it.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.

    Returns:
        (N,) in [0, 1], higher is better, 0.5 is chance; NaN for a mask that is empty or covers everything.

    Reference: Hanley & McNeil 1982, Radiology 143:29.
    """
    return _per_image(weighted.auroc, maps, masks)


def pixel_average_precision(maps: Tensor, masks: Tensor) -> Tensor:
    """Step-wise average precision of an image's pixels against the ground truth.

    Args:
        maps: (N, H, W) raw signed maps.
        masks: (N, H, W) ground truth.

    Returns:
        (N,) in [0, 1], higher is better, chance is the share of ground truth; NaN for an empty mask.

    Reference: Davis & Goadrich 2006, ICML.
    """
    return _per_image(weighted.average_precision, maps, masks)


def _patches(maps: Tensor, masks: Tensor, patch: int, score: Score) -> tuple[Tensor, Tensor]:
    """Scores of all patches and whether each contains ground truth, both (N, P) float64."""
    checked = check_maps(maps)
    truth = check_masks(masks, checked).double()
    return score_patches(checked, patch, score).flatten(1), score_patches(truth, patch, "max").flatten(1)


def _energy(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Positive part of each map scaled to a maximum of 1 (NaN if there is none) and its mask, both (N, H W)."""
    checked = check_maps(maps)
    truth = check_masks(masks, checked).flatten(1).double()
    energy = checked.clamp_min(0).flatten(1)
    return energy / energy.amax(1, keepdim=True), truth


def _undefined_if_empty(values: Tensor, truth: Tensor) -> Tensor:
    return values.masked_fill(~truth.bool().any(1), torch.nan)


def _per_image(metric: weighted.Ranking, maps: Tensor, masks: Tensor) -> Tensor:
    checked = check_maps(maps)
    truth = check_masks(masks, checked).flatten(1).cpu().numpy()
    scores = checked.flatten(1).cpu().numpy()
    once = np.ones((1, scores.shape[1]))
    values = [metric(image, mask, once)[0] for image, mask in zip(scores, truth, strict=True)]
    return torch.tensor(values, dtype=torch.float64, device=maps.device)


def _best(values: Tensor, counts: Tensor) -> Tensor:
    """Return which of (N, P) values are among the `counts` (N,) highest of their row; the first of equal ones are."""
    # The value of the last one that is chosen takes linear time, which an order of all does not.
    places = (values.shape[1] - counts.long()).clamp(max=values.shape[1] - 1).tolist()
    rows = zip(values.cpu().numpy(), places, strict=True)
    last = values.new_tensor([np.partition(row, place)[place] for row, place in rows])[:, None]
    above, level = values > last, values == last
    return above | (level & (level.cumsum(1) <= counts[:, None] - above.sum(1, keepdim=True)))
