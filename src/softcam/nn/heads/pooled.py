"""Heads that pool first: mean or max, then perhaps a norm of the pooled vector, then an affine map."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from softcam.nn.heads.base import EvidenceHead, mean

Pooling = Literal["avg", "max", "avgmax", "catavgmax"]
Statistic = Literal["variance", "mean_square"]


class LinearEvidence(EvidenceHead):
    """Pooling and an affine map: `logits = W pool(features) + b`.

    Mean and convolution commute, so with mean pooling the features are placed as they are, and the logits need no
    maps. A maximum comes from one cell: max pooling places each channel's maximum, times the number of cells, into
    the first cell that attains it, and zero elsewhere.

    Args:
        channels: D, channels of the feature map.
        num_classes: K, number of classes.
        pooling: `avg`, `max`, `avgmax` (half the sum of the two) or `catavgmax` (both, one after the other).
        **options: `dropout` and `dims` as in `EvidenceHead`.
    """

    def __init__(self, channels: int, num_classes: int, *, pooling: Pooling = "avg", **options: Any) -> None:
        super().__init__(channels * (2 if pooling == "catavgmax" else 1), num_classes, **options)
        self.pooling = pooling

    @property
    def kind(self) -> str:  # type: ignore[override]
        """`linear` for the mean, else the pooling."""
        return "linear" if self.pooling == "avg" else self.pooling

    @property
    def channels(self) -> int:
        """D, channels of the features that come in."""
        return self.classifier.in_channels // (2 if self.pooling == "catavgmax" else 1)

    @classmethod
    def from_affine(cls, weight: Tensor, bias: Tensor, *, dropout: float = 0.0, **options: Any) -> LinearEvidence:
        """Return the layer for `logits = weight @ pool(features) + bias`.

        Args:
            weight: (K, D), or (K, 2 D) for `catavgmax`.
            bias: (K,).
            dropout: Probability in [0, 1) of dropping a feature channel in training.
            **options: `pooling` and `dims`.
        """
        channels = weight.shape[1] // (2 if options.get("pooling") == "catavgmax" else 1)
        # Built without values, so that the caller's random generator stays where it is.
        with torch.device("meta"):
            head = cls(channels, weight.shape[0], dropout=dropout, **options)
        return head.set_classifier(weight, bias)

    def place(self, features: Tensor) -> Tensor:
        """Return the features themselves, or with every maximum in its own cell."""
        if self.pooling == "avg":
            return features
        routed = route_maximum(features)
        if self.pooling == "max":
            return routed
        return (features + routed) / 2 if self.pooling == "avgmax" else torch.cat([features, routed], dim=1)

    def pool(self, features: Tensor) -> Tensor:
        """Return the pooled features (N, D')."""
        if self.pooling == "avg":
            return mean(features)
        highest = features.flatten(2).amax(-1)
        if self.pooling == "max":
            return highest
        average = mean(features)
        return (average + highest) / 2 if self.pooling == "avgmax" else torch.cat([average, highest], dim=1)


class NormEvidence(LinearEvidence):
    """Pooling, a norm over the channels of the pooled vector, and an affine map, as in ConvNeXt.

    A layer norm or RMS norm is linear but for one number per image, computed from the pooled vector m: its variance or
    its mean square over channels. With centring, gains and biases folded into W and b,
    `maps = W x / sqrt(statistic(m) + eps) + b` average to the same logits.

    Args:
        channels: D, channels of the feature map.
        num_classes: K, number of classes.
        statistic: `variance` (LayerNorm) or `mean_square` (RMSNorm) of the pooled vector.
        eps: Added to the statistic, > 0.
        **options: `pooling`, `dropout` and `dims`.
    """

    kind = "pooled_norm"

    def __init__(
        self, channels: int, num_classes: int, *, statistic: Statistic, eps: float = 1e-6, **options: Any
    ) -> None:
        super().__init__(channels, num_classes, **options)
        if self.pooling == "catavgmax":
            raise ValueError("Expected `pooling` to be avg, max or avgmax before a norm, but got 'catavgmax'.")
        self.statistic: Statistic = statistic
        self.eps = eps

    def place(self, features: Tensor) -> Tensor:
        """Return the placed features over the norm of the pooled vector."""
        placed = super().place(features)
        scale = self._scale(super().pool(features))
        return placed * scale.reshape(-1, 1, *[1] * self.dims)

    def pool(self, features: Tensor) -> Tensor:
        """Return the pooled vector over its norm."""
        pooled = super().pool(features)
        return pooled * self._scale(pooled)

    def extra_repr(self) -> str:
        """Return what sets this norm apart, for `repr`."""
        return f"{super().extra_repr()}, pooling={self.pooling}, statistic={self.statistic}, eps={self.eps:g}"

    def _scale(self, pooled: Tensor) -> Tensor:
        exact = pooled if pooled.dtype == torch.float64 else pooled.float()
        if self.statistic == "variance":
            exact = exact - exact.mean(1, keepdim=True)
        return (exact.square().mean(1, keepdim=True) + self.eps).rsqrt().to(pooled.dtype)


def route_maximum(features: Tensor) -> Tensor:
    """Return features that hold each channel's maximum, times the number of cells, in its first cell, else zero.

    Args:
        features: (N, D, *grid).

    Returns:
        (N, D, *grid); its mean over the cells is the maximum over the cells.
    """
    cells = features.flatten(2)
    highest = cells.argmax(-1, keepdim=True)
    values = cells.gather(-1, highest) * cells.shape[-1]
    return torch.zeros_like(cells).scatter(-1, highest, values).reshape(features.shape)
