"""Watch the calls that collapse a feature map, to find the last pooling of a network nobody wrote down."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]

REDUCTIONS: frozenset[Function] = frozenset({torch.mean, Tensor.mean, torch.sum, Tensor.sum, torch.amax, Tensor.amax})
POOLINGS: frozenset[Function] = REDUCTIONS.union(
    getattr(F, f"{name}_pool{dims}d") for name in ("avg", "max", "adaptive_avg", "adaptive_max") for dims in (1, 2, 3)
)
RESIZING: frozenset[Function] = frozenset(getattr(F, f"adaptive_avg_pool{dims}d") for dims in (1, 2, 3))
SELECTIONS: frozenset[Function] = frozenset({Tensor.__getitem__, Tensor.select, torch.select})
FLATTENINGS: frozenset[Function] = frozenset(
    {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}
)
RESHAPINGS: frozenset[Function] = FLATTENINGS - {torch.flatten, Tensor.flatten}
DROPOUTS: frozenset[Function] = frozenset({F.dropout, torch.dropout, F.dropout1d, F.dropout2d, F.dropout3d})


class PoolingWatch(TorchFunctionMode):
    """Remember the last call after which the positions of a feature map could no longer be told apart.

    Such a reduction is recognised by what it does: a pooling leaves one value per channel; the
    choice of one token leaves one token of several; a flattening makes one row of several positions. Squeeze-and-
    excitation blocks pool as well, hence the last call counts. Where a map is brought to a fixed grid right before it
    is flattened (VGG), the features are what was there before. Where one map is pooled twice, by its mean and by its
    maximum, the two count as one call, with the number of the first.

    Args:
        substitute: A feature map to put in the place of the input of the reduction number `at`.
        at: Number of the reduction that is substituted, counted from 0.
    """

    def __init__(self, substitute: Tensor | None = None, at: int = -1) -> None:
        super().__init__()
        self.substitute = substitute
        self.at = at
        self.features: Tensor | None = None
        self.number = -1
        self.calls = 0
        self.dropout = 0.0
        self.kind = ""
        self.frozen = False
        self._resized: tuple[Tensor, Tensor, int] | None = None
        self._replaced: Tensor | None = None
        self._version = 0

    def freeze(self) -> None:
        """Take note of nothing from now on."""
        self.frozen = True

    def __torch_function__(
        self, func: Function, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`, taking note of reductions and of the dropout that follows the last of them."""
        kwargs = kwargs or {}
        if self.frozen:
            return func(*args, **kwargs)
        if func in DROPOUTS:
            self.dropout = max(self.dropout, float(kwargs.get("p", args[1] if len(args) > 1 else 0.5)))
        output = func(*args, **kwargs)
        kind = _reduction(func, args[0], output) if args else ""
        if not kind:
            return output
        source, number = args[0], self.calls
        self.calls += 1
        if self.substitute is not None and (number == self.at or source is self._replaced):
            self._replaced = source
            output = _repeat(func, self.substitute, args[1:], kwargs)
        if kind == "resize":
            self._resized = (output, source, number)
            return output
        if kind == "flatten" and self._resized is not None and self._resized[0] is source:
            _, source, number = self._resized
        if not self._is_again(source):
            self.number = number
        self.features, self.dropout, self.kind = source, 0.0, kind
        return output

    def _is_again(self, source: Tensor) -> bool:
        """Return whether the last reduction was of the same map, and nothing was written into it since."""
        if torch.compiler.is_compiling():
            return False
        before, version = self._version, 0 if source.is_inference() else source._version  # noqa: SLF001 - torch's own
        self._version = version
        return source is self.features and version == before


def _repeat(func: Function, substitute: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func in RESHAPINGS:
        # The code may have written the batch size of its own input down.
        return substitute.reshape(len(substitute), -1)
    return func(substitute, *args, **kwargs)


def _reduction(func: Function, source: object, output: object) -> str:
    """Return how a call reduces the positions of a feature map: `pool`, `select`, `flatten`, `resize`, or not."""
    if not (isinstance(source, Tensor) and isinstance(output, Tensor)):
        return ""
    if source.ndim not in (3, 4, 5) or output.ndim < 2 or output.shape[0] != source.shape[0]:
        return ""
    # Per image and without hashing, since an exporter's batch size is a symbol.
    values, left = math.prod(source.shape[1:]), math.prod(output.shape[1:])
    channels = (source.shape[1], source.shape[-1])
    if func in POOLINGS and left in channels and (left < values or (source.ndim > 3 and values == source.shape[1])):
        return "pool"
    if func in RESIZING:
        return "resize"
    if func in SELECTIONS and source.ndim == 3 and output.ndim == 2 and left < values and left == source.shape[-1]:
        return "select"
    flattened = func in FLATTENINGS and output.ndim == 2 and left == values and values not in channels
    return "flatten" if flattened else ""
