"""Read a head that is not linear as a stack of layers, to apply it at every cell."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import Layout, channel_dim, position_dims
from softcam.nn.heads import CellNorm, PerCell, PointwiseEvidence
from softcam.nn.heads.base import Convolution, create_convolution
from softcam.nn.modes import is_batch_norm
from softcam.nn.probe import at_positions
from softcam.nn.split import Split

ROWS = 5
"""Vectors on which a stack is compared with the head; no other batch in a forward of the example has that size."""

TOLERANCE = 1e-4
"""Largest relative difference between stack and head in float32; half precision gets eight of its rounding steps."""

DROPOUTS: dict[int, type[nn.Module]] = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True)
class _Call:
    """One call of a module in the head."""

    module: nn.Module
    given: Tensor
    output: Tensor


class _UnreadableError(Exception):
    """A layer that has no counterpart at a single cell."""


def read_stack(split: Split, layout: Layout, *, windows: bool = False) -> PointwiseEvidence:
    """Return the head's layers, each to be applied at every cell.

    A layer that sees the whole flattened grid is summed over its positions, which is what it computes where all
    cells are alike; with `windows` it becomes a convolution as wide as that grid, which loses nothing.

    Args:
        split: The head, and modules it may call.
        layout: Order of dimensions in which the head reads the features.
        windows: Whether to keep the window of a layer on the flattened grid.

    Raises:
        UnsupportedModelError: If what the head computes is more than a stack of its modules.
    """
    rows = torch.randn(ROWS, split.channels(layout), generator=torch.Generator().manual_seed(7))
    rows = rows.to(split.example)
    with torch.no_grad():
        expected = split.head(at_positions(rows, split, layout))
        for modules in (_leaves(split.network), list(split.network.children())):
            try:
                stack = _Reader(split, layout, windows=windows).read(_record(split, rows, layout, modules))
            except _UnreadableError:
                continue
            if _agrees(stack, split, layout, rows, expected):
                return stack
    raise UnsupportedModelError(
        "Expected the head to be a stack of layers, but it computes something between them. Name the modules whose "
        "outputs are the feature map and the logits (`features=`, `classifier=`), or use `num_classes=` with "
        "`head='linear'` for a new class evidence layer on the same trunk, and train it."
    )


def _leaves(module: nn.Module) -> list[nn.Module]:
    """Return the modules that are layers: those without children, and activations built of others."""
    parts = list(module.modules())
    whole = len(parts) == 1 or is_batch_norm(module)
    whole = whole or not (
        any(True for _ in module.parameters())
        or isinstance(module, nn.Sequential)
        or any(isinstance(part, nn.Dropout) for part in parts)
    )
    return [module] if whole else [leaf for child in module.children() for leaf in _leaves(child)]


def _record(split: Split, rows: Tensor, layout: Layout, modules: Sequence[nn.Module]) -> list[_Call]:
    calls: list[_Call] = []
    given: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].shape[0] == ROWS:
            given[module] = inputs[0].clone()  # before an activation changes it in place

    def note(module: nn.Module, _inputs: object, output: Any) -> None:
        if module in given and isinstance(output, Tensor):
            calls.append(_Call(module, given.pop(module), output.clone()))

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(keep).remove)
            stack.callback(module.register_forward_hook(note).remove)
        split.head(at_positions(rows, split, layout))
    return calls


class _Reader:
    """Turns calls of modules into layers for cells."""

    def __init__(self, split: Split, layout: Layout, *, windows: bool) -> None:
        self.split = split
        self.layout = layout
        self.dims = split.dims
        self.windows = windows
        self.channels = split.channels(layout)

    def read(self, calls: list[_Call]) -> PointwiseEvidence:
        """Return the layers of the calls; the last becomes the classifier."""
        layers = [layer for call in calls for layer in self._layers(call)]
        if not layers or not isinstance(layers[-1], Convolution) or max(layers[-1].kernel_size) > 1:
            raise _UnreadableError
        last = layers[-1]
        with torch.device("meta"):
            shape = (self.split.channels(self.layout), last.in_channels, last.out_channels)
            head = PointwiseEvidence(nn.Identity(), *shape, dims=self.dims)
        head.body = nn.Sequential(*layers[:-1])
        bias = last.weight.new_zeros(last.out_channels) if last.bias is None else last.bias
        return head.set_classifier(last.weight.detach().flatten(1), bias.detach())

    def _layers(self, call: _Call) -> Iterator[nn.Module]:
        module = call.module
        if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout):
            yield DROPOUTS[self.dims](module.p)
        elif isinstance(module, nn.Linear | Convolution):
            yield self._convolution(module)
        elif is_batch_norm(module):
            yield self._batch_norm(module)
            # timm's batch norms bring their activation along.
            yield from (copy.deepcopy(child) for child in module.children() if not isinstance(child, nn.Identity))
        elif type(module).forward is nn.LayerNorm.forward or _is_cell_norm(module, call):
            yield CellNorm(copy.deepcopy(module))  # type: ignore[arg-type]
        elif call.output.numel() == call.given.numel():
            if not torch.equal(call.output.flatten(), call.given.flatten()):
                yield self._same_size(call)
        elif any(True for _ in module.parameters()):
            yield self._per_cell(call)

    def _same_size(self, call: _Call) -> nn.Module:
        bare = not any(True for _ in call.module.parameters())
        return copy.deepcopy(call.module) if bare else self._per_cell(call)

    def _per_cell(self, call: _Call) -> PerCell:
        self.channels = call.output.numel() // ROWS
        ndim = call.given.ndim
        if ndim == 3 and self.dims != 1:
            return PerCell(copy.deepcopy(call.module), "tokens")
        if ndim == 2:
            return PerCell(copy.deepcopy(call.module), "rows")
        return PerCell(
            copy.deepcopy(call.module), "channels_first" if channel_dim(self.layout) == 1 else "channels_last"
        )

    def _convolution(self, module: nn.Linear | Convolution) -> Convolution:
        weight = module.weight.detach()
        if isinstance(module, Convolution) and (module.groups != 1 or max(module.padding) != 0):
            raise _UnreadableError
        kernel = self._kernel(weight)
        if not self.windows:
            kernel = kernel.sum(tuple(range(2, kernel.ndim)), keepdim=True)
        self.channels = kernel.shape[0]
        return create_convolution(kernel, None if module.bias is None else module.bias.detach())

    def _kernel(self, weight: Tensor) -> Tensor:
        """Return a layer's weights as the kernel (out, in, *window) of a convolution over cells."""
        if weight.ndim > 2:
            return weight if weight.ndim == self.dims + 2 else weight.reshape(*weight.shape[:2], *[1] * self.dims)
        positions, rest = divmod(weight.shape[1], self.channels)
        if rest:
            raise _UnreadableError
        window = self._window(positions)
        if channel_dim(self.layout) == 1:
            return weight.reshape(len(weight), self.channels, *window)
        return weight.reshape(len(weight), *window, self.channels).movedim(-1, 1)

    def _window(self, positions: int) -> tuple[int, ...]:
        if positions == 1:
            return (1,) * self.dims
        grid = tuple(self.split.shape[dim] for dim in position_dims(self.layout))
        if len(grid) == self.dims and torch.Size(grid).numel() == positions:
            return grid
        # A pooling to a fixed grid lies between: a square one, in all networks that were met.
        side = round(positions ** (1 / self.dims))
        if side**self.dims != positions:
            raise _UnreadableError
        return (side,) * self.dims

    def _batch_norm(self, module: nn.Module) -> nn.Module:
        if module.num_features != self.channels:
            raise _UnreadableError
        layer = BATCH_NORMS[self.dims](self.channels, eps=module.eps, momentum=module.momentum, affine=module.affine)
        layer.load_state_dict(module.state_dict())
        return layer.to(next(module.buffers()))


def _is_cell_norm(module: nn.Module, call: _Call) -> bool:
    """Return whether a subclass of LayerNorm, perhaps one for (N, D, h, w), norms the channels of single positions."""
    if not isinstance(module, nn.LayerNorm):
        return False
    return len(module.normalized_shape) == 1 and call.given.numel() == ROWS * module.normalized_shape[0]


def _agrees(head: PointwiseEvidence, split: Split, layout: Layout, rows: Tensor, expected: Tensor) -> bool:
    features = at_positions(rows, split, layout)
    features = features if channel_dim(layout) == 1 else features.movedim(-1, 1)
    window = head.kind == "fully_convolutional"
    cells = features if window else rows.reshape(*rows.shape, *[1] * split.dims)
    with _evaluated(head):
        try:
            found = head(cells)
        except (RuntimeError, ValueError):
            return False
    tolerance = max(TOLERANCE, 8 * torch.finfo(expected.dtype).eps)
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance * expected.abs().max())


@contextmanager
def _evaluated(head: nn.Module) -> Iterator[None]:
    head.eval()
    try:
        yield
    finally:
        head.train()
