"""The layer that class activation methods look at, found by watching a forward pass."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from softcam.attribution.state import borrowed
from softcam.errors import UnsupportedModelError
from softcam.nn import SoftCAM


def find_target_layer(model: nn.Module, images: Tensor) -> str:
    """Return the name of the last module whose output still has a spatial grid.

    The last module that finishes with an output (N, D, h, w) of more than one cell is taken, so of several nested
    modules that return the same features the outermost one. A grid must have the proportions of the image, which
    tells feature maps from channels-last layouts (N, h, w, D) and from token tables. The class evidence layer of a
    SoftCAM is passed over: methods explain the features before it.

    Args:
        model: Any module that maps images (N, C, H, W) to logits.
        images: Images (N, C, H, W); only the first is used.

    Returns:
        A dotted name as in `model.named_modules()`.

    Raises:
        UnsupportedModelError: If no module has such an output, or if token tables (N, L, D) come after it, as in a
            vision transformer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> find_target_layer(model, torch.zeros(1, 3, 8, 8))
        '1'
    """
    finished: list[str | None] = []
    handles: list[RemovableHandle] = []
    skipped = set(model.head.modules()) if isinstance(model, SoftCAM) else set()
    size = (images.shape[-2], images.shape[-1])
    with borrowed(model), torch.no_grad():
        try:
            for name, module in model.named_modules():
                if name and module not in skipped:
                    handles.append(module.register_forward_hook(partial(_note, name, size, finished)))
            model(images[:1])
        finally:
            for handle in handles:
                handle.remove()
    last = finished[-1] if finished else None
    if last is None:
        raise UnsupportedModelError(
            f"Expected `model` to end in a layer with output (N, D, h, w), but found none in {type(model).__name__}. "
            "Use a method that needs no such layer, e.g. integrated_gradients."
        )
    return last


def _note(
    name: str, size: tuple[int, int], finished: list[str | None], _module: nn.Module, _inputs: object, output: object
) -> None:
    if isinstance(output, Tensor) and output.ndim == 4 and _is_grid(output, size):
        finished.append(name)
    elif isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] > 1:
        # A table of tokens: the grid before it, a patch embedding, is not what the classifier sees.
        finished.append(None)


def _is_grid(features: Tensor, size: tuple[int, int]) -> bool:
    height, width = features.shape[-2:]
    # Rounding moves a side by at most one cell, so the two shares may differ by one cell of each.
    slack = 1 / height + 1 / width
    proportional = abs(height * size[1] / (width * size[0]) - 1) <= slack
    return height * width > 1 and height <= size[0] and width <= size[1] and proportional
