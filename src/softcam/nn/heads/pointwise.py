"""A stack of layers at every cell: what stands for a head that is not linear in the pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from softcam.nn.heads.base import Convolution, EvidenceHead, mean


class PointwiseEvidence(EvidenceHead):
    """The layers of a head applied at every cell, and the mean over cells last.

    The paper's form for VGG, whose fully connected layers become 1x1 convolutions; the same serves any head with a
    nonlinearity between pooling and logits. Logits differ from the black box's, since the nonlinearity comes before
    the mean, so fine-tuning is needed.

    Args:
        body: Layers, features (N, D, *grid) to (N, D', *grid'); they may only look at one cell at a time, or at a
            fixed window of cells (a fully convolutional head).
        channels: D, channels of the features.
        hidden: D', channels that the body gives.
        num_classes: K, number of classes.
        **options: `dropout` and `dims`.

    Reference:
        Djoumessi & Berens, MIDL 2026, VGG-16.
    """

    def __init__(self, body: nn.Module, channels: int, hidden: int, num_classes: int, **options: Any) -> None:
        super().__init__(hidden, num_classes, **options)
        self.body = body
        self._channels = channels

    @property
    def kind(self) -> str:  # type: ignore[override]
        """`pointwise`, or `fully_convolutional` where the body looks at windows of cells."""
        wide = any(max(m.kernel_size) > 1 for m in self.body.modules() if isinstance(m, Convolution))
        return "fully_convolutional" if wide else "pointwise"

    @property
    def channels(self) -> int:
        """D, channels of the features that come in."""
        return self._channels

    def cells(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the cells of a map on features of a grid: fewer, where the body looks at windows."""
        cells = tuple(grid)
        for module in self.body.modules():
            if isinstance(module, Convolution):
                cells = tuple(count - size + 1 for count, size in zip(cells, module.kernel_size, strict=True))
        return cells

    def place(self, features: Tensor) -> Tensor:
        """Return the body's output."""
        placed: Tensor = self.body(features)
        return placed

    def evidence(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and maps (N, K, *grid) from one run of the body, whose own dropout draws once."""
        mask = self._mask(features)
        placed = self.place(features)
        masked = placed if mask is None else placed * mask.reshape(*mask.shape, *[1] * self.dims)
        return self._classify(mean(placed), mask), self._convolve(masked)


class CellNorm(nn.Module):
    """A layer norm over the channels of every cell.

    Args:
        norm: The layer norm of vectors whose weights are taken over.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, D, *grid), normalised."""
        last = F.layer_norm(
            features.movedim(1, -1), self.norm.normalized_shape, self.norm.weight, self.norm.bias, self.norm.eps
        )
        return last.movedim(-1, 1)


class PerCell(nn.Module):
    """Any module, given every cell as an image of its own.

    Args:
        module: What is run on the cells.
        form: Shape that the module takes: `rows` (M, D), `tokens` (M, 1, D), `channels_first` (M, D, 1, ...) or
            `channels_last` (M, 1, ..., D).
    """

    def __init__(
        self, module: nn.Module, form: Literal["rows", "tokens", "channels_first", "channels_last"] = "rows"
    ) -> None:
        super().__init__()
        self.module = module
        self.form = form

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, D', *grid) of features (N, D, *grid)."""
        last = features.movedim(1, -1)
        rows = last.reshape(-1, last.shape[-1])
        outputs: Tensor = self.module(rows.reshape(self._shape(rows, features.ndim - 2)))
        return outputs.reshape(*last.shape[:-1], -1).movedim(-1, 1)

    def extra_repr(self) -> str:
        """Return the form for `repr`."""
        return f"form={self.form}"

    def _shape(self, rows: Tensor, dims: int) -> tuple[int, ...]:
        count, channels = rows.shape
        forms: dict[str, tuple[int, ...]] = {
            "rows": (count, channels),
            "tokens": (count, 1, channels),
            "channels_first": (count, channels, *[1] * dims),
            "channels_last": (count, *[1] * dims, channels),
        }
        return forms[self.form]
