"""Watch the calls that collapse a feature map, to find the last pooling of a network nobody wrote down."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

POOLINGS: frozenset[Callable[..., Any]] = frozenset(
    {
        torch.mean,
        Tensor.mean,
        torch.sum,
        Tensor.sum,
        torch.amax,
        Tensor.amax,
        F.avg_pool2d,
        F.max_pool2d,
        F.adaptive_avg_pool2d,
        F.adaptive_max_pool2d,
    }
)
DROPOUTS: frozenset[Callable[..., Any]] = frozenset({F.dropout, torch.dropout, F.dropout2d})


class PoolingWatch(TorchFunctionMode):
    """Remember the last call that reduced all positions of a feature map to one.

    A pooling is recognised by what it does: its input has more than one position and its output one value per
    channel. Squeeze-and-excitation blocks pool as well, hence the last call counts.

    Args:
        substitute: A feature map to put in the place of the input of the call number `at`.
        at: Number of the pooling call that is substituted, counted from 0.
    """

    def __init__(self, substitute: Tensor | None = None, at: int = -1) -> None:
        super().__init__()
        self.substitute = substitute
        self.at = at
        self.features: Tensor | None = None
        self.calls = 0
        self.dropout = 0.0

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`, taking note of poolings and of the dropout that follows the last of them."""
        kwargs = kwargs or {}
        if func in DROPOUTS:
            self.dropout = max(self.dropout, float(kwargs.get("p", args[1] if len(args) > 1 else 0.5)))
        output = func(*args, **kwargs)
        if func not in POOLINGS or not args or not _collapses(args[0], output):
            return output
        features = args[0]
        if self.calls == self.at and self.substitute is not None:
            features = self.substitute
            output = func(features, *args[1:], **kwargs)
        self.features, self.dropout = features, 0.0
        self.calls += 1
        return output


def _collapses(features: object, output: object) -> bool:
    if not (isinstance(features, Tensor) and isinstance(output, Tensor)):
        return False
    if features.ndim not in (3, 4) or output.ndim < 2 or output.shape[0] != features.shape[0]:
        return False
    # Per image and without hashing, since an exporter's batch size is a symbol.
    values, single = math.prod(features.shape[1:]), math.prod(output.shape[1:])
    return bool(single < values and (single == features.shape[1] or single == features.shape[-1]))
