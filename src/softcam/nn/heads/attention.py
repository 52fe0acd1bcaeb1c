"""Attention pooling with an affine output: the attention weights of the image place the values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.heads.base import EvidenceHead, mean


class AttentionEvidence(EvidenceHead):
    """CLIP's attention pooling: the mean token asks, all tokens answer, and the answer is classified.

    Tokens are the mean of the cells, then the cells, each with its position added. With the attention weights a of the
    image fixed, the output is affine in the tokens, hence in the cells x_p. Of hw cells, cell p is placed as
    `hw a_p v(x_p + e_p) + a_0 v(x_p + e_0)` per attention head, whose mean is the pooled answer. The weights
    themselves depend on all cells.

    Args:
        channels: D, channels of the feature map.
        num_classes: K, number of classes.
        num_heads: Number of attention heads.
        embed_dim: E, channels of queries, keys and values; a multiple of `num_heads`.
        grid: Cells (h, w) for which positions were learned; for another grid they are interpolated.
        **options: `dropout`.

    Reference:
        Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021.
    """

    kind = "attention"

    def __init__(
        self, channels: int, num_classes: int, *, num_heads: int, embed_dim: int, grid: tuple[int, int], **options: Any
    ) -> None:
        super().__init__(embed_dim, num_classes, **options)
        self.query = nn.Linear(channels, embed_dim)
        self.key = nn.Linear(channels, embed_dim)
        self.value = nn.Linear(channels, embed_dim)
        self.positions = nn.Parameter(torch.zeros(1 + grid[0] * grid[1], channels))
        self.num_heads = num_heads
        self.grid = grid

    @property
    def channels(self) -> int:
        """D, channels of the features that come in."""
        return self.query.in_features

    def place(self, features: Tensor) -> Tensor:
        """Return values (N, E, h, w), each weighed by the attention it got."""
        _, cells, attention = self._attend(features)
        asked, answers = attention[..., :1], attention[..., 1:]  # (N, heads, 1), (N, heads, hw)
        own = self._split(self.value(cells)) * answers[..., None] * cells.shape[1]
        shared = self._split(self.value(self._cells(features) + self._positions(features)[:1])) * asked[..., None]
        placed = self._join(own + shared)
        # Not `len(features)`: torch.export would write that number of images into the graph.
        return placed.transpose(1, 2).reshape(features.shape[0], -1, *features.shape[2:])

    def pool(self, features: Tensor) -> Tensor:
        """Return the answer (N, E) of the attention."""
        first, cells, attention = self._attend(features)
        values = self._split(self.value(torch.cat([first, cells], dim=1)))
        return self._join((attention[..., None] * values).sum(2, keepdim=True))[:, 0]

    def _attend(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean token (N, 1, D), the cells (N, hw, D) and the attention (N, heads, 1 + hw) of the former."""
        positions = self._positions(features)
        first = mean(features)[:, None] + positions[:1]
        cells = self._cells(features) + positions[1:]
        query = self._split(self.query(first))
        keys = self._split(self.key(torch.cat([first, cells], dim=1)))
        scores = (query * keys).sum(-1) / query.shape[-1] ** 0.5
        return first, cells, scores.softmax(-1)

    @staticmethod
    def _cells(features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2)

    def _positions(self, features: Tensor) -> Tensor:
        grid = (features.shape[-2], features.shape[-1])
        if grid == self.grid:
            return self.positions
        learned = self.positions[1:].T.reshape(1, -1, *self.grid)
        resized = F.interpolate(learned.float(), size=grid, mode="bicubic", antialias=True).to(learned)
        return torch.cat([self.positions[:1], resized.flatten(2)[0].T])

    def _split(self, tokens: Tensor) -> Tensor:
        # (N, tokens, E) -> (N, heads, tokens, E / heads)
        return tokens.reshape(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)

    @staticmethod
    def _join(values: Tensor) -> Tensor:
        # (N, heads, tokens, E / heads) -> (N, tokens, E)
        return values.transpose(1, 2).flatten(-2)
