"""What every class evidence layer has in common.

A head that pools and classifies computes `logits = W pooled + b`. If features can be *placed*, that is, turned into
features of the same grid whose mean over cells is that pooled vector, then the 1x1 convolution (W, b) of the placed
features gives maps that average to the logits. The kinds of head differ in how they place features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}

WEIGHT_STD = 0.01
"""Standard deviation of the weights of a new classifier."""


class EvidenceHead(nn.Module):
    """A class evidence layer: features (N, D, *grid) to logits (N, K) and maps (N, K, *grid) that average to them.

    Args:
        channels: D', channels of the placed features.
        num_classes: K, number of classes.
        dropout: Probability in [0, 1) of dropping a placed channel in training. Whole channels fall: on the maps that
            is the same random variable as dropout on the pooled vector of the black box, where element-wise dropout
            would be far weaker.
        dims: Number of dimensions of the grid: 1 for signals, 2 for images, 3 for volumes.
    """

    kind: str = ""

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.0, dims: int = 2) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"Expected `num_classes` to be >= 1, but got {num_classes}.")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"Expected `dropout` to be in [0, 1), but got {dropout}.")
        if dims not in CONVOLUTIONS:
            raise ValueError(f"Expected `dims` to be 1, 2 or 3, but got {dims}.")
        self.dropout = dropout
        self.dims = dims
        self.classifier: Convolution = CONVOLUTIONS[dims](channels, num_classes, kernel_size=1)
        nn.init.normal_(self.classifier.weight, std=WEIGHT_STD)
        nn.init.zeros_(_bias(self.classifier))

    @property
    def channels(self) -> int:
        """D, channels of the features that come in."""
        return self.classifier.in_channels

    @property
    def num_classes(self) -> int:
        """K, number of classes."""
        return self.classifier.out_channels

    def place(self, features: Tensor) -> Tensor:
        """Return features (N, D', *grid) whose mean over the cells is `pool(features)`."""
        raise NotImplementedError

    def pool(self, features: Tensor) -> Tensor:
        """Return the vector (N, D') that the classifier sees; no map is made where that can be avoided."""
        return mean(self.place(features))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, K) of features (N, D, *grid)."""
        return self._classify(self.pool(features), self._mask(features))

    def evidence(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and maps (N, K, *grid); the same channels are dropped for both.

        The two are computed independently, pooling first and convolution first, so that comparing them is a check.
        """
        mask = self._mask(features)
        placed = self.place(features)
        if mask is not None:
            placed = placed * mask.reshape(*mask.shape, *[1] * self.dims)
        return self._classify(self.pool(features), mask), self._convolve(placed)

    def set_classifier(self, weight: Tensor, bias: Tensor) -> Self:
        """Take weight (K, D') and bias (K,) over, with their dtype and device, and return this layer."""
        self.classifier = create_convolution(weight.reshape(*weight.shape, *[1] * self.dims), bias)
        return self

    def cells(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the cells of a map on features of a grid."""
        return tuple(grid)

    def reset(self, num_classes: int) -> None:
        """Put a new, untrained classifier for `num_classes` classes in place, on the same device and in the same dtype.

        All that comes before the classifier stays.
        """
        if num_classes < 1:
            raise ValueError(f"Expected `num_classes` to be >= 1, but got {num_classes}.")
        old = self.classifier.weight
        weight = torch.empty(num_classes, old.shape[1], device=old.device, dtype=torch.float32)
        self.set_classifier(nn.init.normal_(weight, std=WEIGHT_STD).to(old.dtype), old.new_zeros(num_classes))

    def extra_repr(self) -> str:
        """Return the dropout for `repr`."""
        return f"dropout={self.dropout:g}"

    def _mask(self, features: Tensor) -> Tensor | None:
        if not (self.dropout and self.training):
            return None
        ones = features.new_ones(features.shape[0], self.classifier.in_channels)
        return F.dropout(ones, self.dropout)

    def _convolve(self, placed: Tensor) -> Tensor:
        weight, bias = self.classifier.weight, self.classifier.bias
        if placed.is_cuda and placed.dtype == torch.float32:
            # cuDNN rounds what a convolution multiplies to ten bits (TF32) unless told otherwise, and the maps would
            # miss the logits by 1e-3; a matrix product keeps float32.
            return F.linear(placed.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
        maps: Tensor = self.classifier(placed)
        return maps

    def _classify(self, pooled: Tensor, mask: Tensor | None) -> Tensor:
        pooled = pooled if mask is None else pooled * mask
        return F.linear(pooled, self.classifier.weight.flatten(1), self.classifier.bias)


def create_convolution(weight: Tensor, bias: Tensor | None) -> Convolution:
    """Return a convolution with copies of a kernel (out, in, *window) and a bias (out,), in their dtype and place."""
    # Built without values, so that the caller's random generator stays where it is.
    with torch.device("meta"):
        layer = CONVOLUTIONS[weight.ndim - 2](
            weight.shape[1],
            weight.shape[0],
            kernel_size=tuple(weight.shape[2:]),  # type: ignore[arg-type]
            bias=bias is not None,
        )
    layer = layer.to(weight.dtype).to_empty(device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias)
    return layer


def mean(features: Tensor) -> Tensor:
    """Return the mean (N, D) over the cells of (N, D, *grid), in the same dtype.

    Half precision would add up a few thousand cells; float32 sums cost nothing here.
    """
    exact = features.dtype if features.dtype == torch.float64 else torch.float32
    return features.mean(dim=tuple(range(2, features.ndim)), dtype=exact).to(features.dtype)


def _bias(convolution: Convolution) -> Tensor:
    if convolution.bias is None:
        raise ValueError("Expected the class evidence layer to have a bias, but it has none.")
    return convolution.bias
