"""Several feature maps, each with a class evidence layer of its own; their logits add up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.heads.base import EvidenceHead, mean

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class SeveralEvidence(nn.Module):
    """A sum of class evidence layers on feature maps of different sizes.

    The maps are brought to the grid of the finest by interpolation whose mean is put right, so that the summed map
    averages to the summed logits. Tokens that belong to no place in the image (the hidden states of a state-space
    model) give every cell the same share.

    Args:
        heads: One layer per feature map.
        placed: Whether the tokens of a feature map lie on a grid over the image, one entry per layer; at least one
            has to.
    """

    kind = "several"

    def __init__(self, heads: Sequence[EvidenceHead], *, placed: Sequence[bool] | None = None) -> None:
        super().__init__()
        self.placed = tuple(placed or [True] * len(heads))
        if len(self.placed) != len(heads) or not any(self.placed):
            raise ValueError(f"Expected `placed` to name one of {len(heads)} maps at least, but got {self.placed}.")
        self.heads = nn.ModuleList(heads)

    @property
    def classifier(self) -> nn.ModuleList:
        """The 1x1 convolutions."""
        return nn.ModuleList([head.classifier for head in self.layers()])

    @property
    def channels(self) -> int:
        """Channels of all feature maps together."""
        return sum(head.channels for head in self.layers())

    @property
    def num_classes(self) -> int:
        """K, number of classes."""
        return self.layers()[0].num_classes

    @property
    def dropout(self) -> float:
        """Probability of dropping a feature channel in training."""
        return self.layers()[0].dropout

    @dropout.setter
    def dropout(self, value: float) -> None:
        """Set the probability for all layers."""
        for head in self.layers():
            head.dropout = value

    def layers(self) -> list[EvidenceHead]:
        """Return the class evidence layers, one per feature map."""
        return [head for head in self.heads if isinstance(head, EvidenceHead)]

    def parts(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return logits (N, K) and maps (N, K, *grid) of each layer, on its own grid."""
        return [head.evidence(part) for head, part in zip(self.layers(), features, strict=True)]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (N, K) of the feature maps."""
        return torch.stack([head(part) for head, part in zip(self.layers(), features, strict=True)]).sum(0)

    def evidence(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and maps (N, K, *grid) on the finest grid."""
        return self.add(self.parts(features))

    def add(self, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the sum of what `parts` gave: logits, and maps on the finest grid."""
        logits = torch.stack([part[0] for part in parts]).sum(0)
        finest = max([m for (_, m), placed in zip(parts, self.placed, strict=True) if placed], key=_cells)
        summed = [
            resize(maps, finest.shape[2:]) if placed else _spread(maps, finest.ndim)
            for (_, maps), placed in zip(parts, self.placed, strict=True)
        ]
        return logits, sum(summed[1:], start=summed[0]).expand_as(finest)

    def cells(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the cells of the summed map where the finest features have a grid."""
        return tuple(grid)

    def reset(self, num_classes: int) -> None:
        """Put new, untrained classifiers for `num_classes` classes in place."""
        for head in self.layers():
            head.reset(num_classes)


def resize(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Return maps (N, K, *grid) interpolated to another grid; their means stay what they were.

    Args:
        maps: (N, K, *old grid) with 1 to 3 dimensions of the grid.
        grid: The new number of cells along each of them.
    """
    if tuple(maps.shape[2:]) == tuple(grid):
        return maps
    resized = F.interpolate(maps, size=tuple(grid), mode=MODES[maps.ndim - 2], align_corners=False)
    difference = mean(maps) - mean(resized)
    return resized + difference.reshape(*difference.shape, *[1] * (maps.ndim - 2))


def _spread(maps: Tensor, ndim: int) -> Tensor:
    means = mean(maps)
    return means.reshape(*means.shape, *[1] * (ndim - 2))


def _cells(maps: Tensor) -> int:
    return maps[0, 0].numel()
