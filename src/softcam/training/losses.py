"""The classification loss: cross-entropy, weighted by class, smoothed or focused on what is hard."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    multi_label: bool = False,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    focus: float = 0.0,
) -> Tensor:
    """Return the mean loss of a batch, a scalar in float32.

    With a focus g, the loss of an image is multiplied by (1 - p)^g, where p is the probability of its label: what is
    easy hardly counts. A mean that is weighted by class is divided by the sum of the weights, with a focus too.

    Args:
        logits: (N, K).
        targets: Class indices (N,), or 0 and 1 (N, K) where classes are independent (binary cross-entropy each).
        multi_label: Whether they are.
        weights: Weight of each class (K,); of its positives where classes are independent.
        smoothing: Share of the target spread over all classes, in [0, 1).
        focus: g >= 1, or 0 for plain cross-entropy.

    Reference:
        Lin et al. 2017, "Focal loss for dense object detection", arXiv 1708.02002.

    Example:
        >>> even = torch.zeros(1, 2)
        >>> plain, focal = (classification_loss(even, torch.tensor([0]), focus=g).item() for g in (0.0, 2.0))
        >>> round(focal / plain, 6)
        0.25
    """
    logits = logits.float()
    if multi_label:
        return _binary_loss(logits, targets.float(), weights, smoothing, focus)
    if focus == 0:
        return F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)
    losses = F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="none")
    probability = logits.softmax(1).gather(1, targets[:, None])[:, 0]
    total = len(targets) if weights is None else weights[targets].sum()
    # Rounding may take a probability above 1.
    return ((1 - probability).clamp_min(0) ** focus * losses).sum() / total


def _binary_loss(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, focus: float) -> Tensor:
    smoothed = targets * (1 - smoothing) + smoothing / 2
    if focus == 0:
        return F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weights)
    losses: Tensor = sigmoid_focal_loss(logits, smoothed, alpha=-1, gamma=focus, reduction="none")
    return (losses if weights is None else losses * torch.where(targets > 0, weights, 1)).mean()
