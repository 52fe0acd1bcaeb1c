"""Class evidence layers: what stands in place of pooling and classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LinearEvidence(nn.Module):
    """A 1x1 convolution whose K output maps average to the logits.

    Mean and convolution commute, so the logits are computed by pooling first (cheap even for 1,000 classes) and the
    maps only when they are asked for. Dropout falls on whole feature channels: on the maps that is the same random
    variable as dropout on the pooled vector of the black box, where element-wise dropout would be far weaker.

    Args:
        channels: D, channels of the feature map.
        num_classes: K, number of classes.
        dropout: Probability in [0, 1) of dropping a feature channel in training.
    """

    kind = "linear"

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"Expected `num_classes` to be >= 1, but got {num_classes}.")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"Expected `dropout` to be in [0, 1), but got {dropout}.")
        self.dropout = dropout
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(_bias(self.classifier))

    @classmethod
    def from_affine(cls, weight: Tensor, bias: Tensor, *, dropout: float = 0.0) -> LinearEvidence:
        """Return the layer for `logits = weight @ mean(features) + bias`.

        Args:
            weight: (K, D).
            bias: (K,).
            dropout: Probability in [0, 1) of dropping a feature channel in training.
        """
        # Built without values, so that the caller's random generator stays where it is.
        with torch.device("meta"):
            head = cls(weight.shape[1], weight.shape[0], dropout=dropout)
        head = head.to(weight.dtype).to_empty(device=weight.device)
        with torch.no_grad():
            head.classifier.weight.copy_(weight[..., None, None])
            _bias(head.classifier).copy_(bias)
        return head

    @property
    def channels(self) -> int:
        """D, channels of the feature map."""
        return self.classifier.in_channels

    @property
    def num_classes(self) -> int:
        """K, number of classes."""
        return self.classifier.out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, K) of features (N, D, h, w)."""
        return self._logits(self._drop(features))

    def evidence(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and maps (N, K, h, w); the same channels are dropped for both.

        The two are computed independently, pooling first and convolution first, so that comparing them is a check.
        """
        kept = self._drop(features)
        return self._logits(kept), self.classifier(kept)

    def reset(self, num_classes: int) -> None:
        """Put a new, untrained layer for `num_classes` classes in place, on the same device and in the same dtype."""
        fresh = type(self)(self.channels, num_classes, dropout=self.dropout)
        self.classifier = fresh.classifier.to(self.classifier.weight)

    def extra_repr(self) -> str:
        """Return the dropout for `repr`."""
        return f"dropout={self.dropout:g}"

    def _drop(self, features: Tensor) -> Tensor:
        return F.dropout2d(features, self.dropout, training=self.training) if self.dropout else features

    def _logits(self, features: Tensor) -> Tensor:
        # Autocast would add up a few thousand half-precision cells; float32 sums cost nothing here.
        exact = features.dtype if features.dtype == torch.float64 else torch.float32
        pooled = features.mean(dim=(-2, -1), dtype=exact).to(features.dtype)
        return F.linear(pooled, self.classifier.weight.flatten(1), self.classifier.bias)


def _bias(convolution: nn.Conv2d) -> Tensor:
    if convolution.bias is None:
        raise ValueError("Expected the class evidence layer to have a bias, but it has none.")
    return convolution.bias
