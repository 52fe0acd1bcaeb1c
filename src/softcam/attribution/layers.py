"""The layer that class activation methods look at, found by watching a forward pass."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from softcam.attribution.state import borrowed, hooked
from softcam.errors import UnsupportedModelError
from softcam.nn import Augmented, Ensemble, SoftCAM

Watched = tuple[str, tuple[int, int]] | None
"""Name and grid (h, w) of a module's output; None where a token table took the place of the grid."""


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
    return _last_of(model, _watch_grids(model, images))


def find_stages(model: nn.Module, images: Tensor, *, count: int) -> tuple[str, ...]:
    """Return the names of the modules where the coarsest grids end, in the order in which the model reaches them.

    Of the modules with a grid the outermost are taken, and of these the last: with `count=3` the stages 2, 3 and 4 of a
    ResNet. What counts as a grid is said at `find_target_layer`; grids before a token table are not taken.

    Args:
        model: Any module that maps images (N, C, H, W) to logits.
        images: Images (N, C, H, W); only the first is used.
        count: Most stages wanted, at least 1.

    Returns:
        At most `count` dotted names.

    Raises:
        UnsupportedModelError: If there is no such layer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        >>> find_stages(model, torch.zeros(1, 3, 16, 16), count=3)
        ('1', '2')
    """
    finished = _watch_grids(model, images)
    _last_of(model, finished)
    names: dict[tuple[int, int], str] = {}
    for watched in reversed(finished):
        if watched is None:
            break
        name, grid = watched
        if name.count(".") < names.setdefault(grid, name).count("."):
            names[grid] = name
    return tuple(reversed(list(names.values())[:count]))


def get_layer(model: nn.Module, images: Tensor, name: str | None) -> nn.Module:
    """Return the module of a name, or the one that `find_target_layer` names.

    Args:
        model: Any module that maps images (N, C, H, W) to logits.
        images: Images (N, C, H, W); only the first is used.
        name: Dotted name, or None.

    Raises:
        ValueError: If the model has no such module.
        UnsupportedModelError: If no name is given and the model has no spatial layer.
    """
    _refuse_several(model)
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name is not None and name not in modules:
        raise ValueError(f"Expected `layer` to name a module of the model, but got {name!r}.")
    return modules[find_target_layer(model, images) if name is None else name]


def read_features(model: nn.Module, images: Tensor, layer: nn.Module) -> Tensor:
    """Return what a module gives out when the model runs, without gradients.

    Args:
        model: Maps images (N, C, H, W) to logits.
        images: Images (N, C, H, W).
        layer: A module of the model.

    Returns:
        Features (N, D, h, w), a copy.

    Raises:
        UnsupportedModelError: If the output has another shape.
    """
    outputs: list[Tensor] = []
    with torch.no_grad(), hooked(layer, partial(_keep_copy, outputs)):
        model(images)
    if not outputs or outputs[-1].ndim != 4:
        shape = tuple(outputs[-1].shape) if outputs else "none"
        raise UnsupportedModelError(
            f"Expected the layer looked at to give features (N, D, h, w), but got {shape}. Name another `layer`."
        )
    return outputs[-1]


def _keep_copy(outputs: list[Tensor], _module: nn.Module, _inputs: object, output: object) -> None:
    # Cloned because a later in-place activation would overwrite it.
    if isinstance(output, Tensor):
        outputs.append(output.clone())


def _watch_grids(model: nn.Module, images: Tensor) -> list[Watched]:
    _refuse_several(model)
    finished: list[Watched] = []
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
    return finished


def _refuse_several(model: nn.Module) -> None:
    if isinstance(model, Ensemble | Augmented):
        raise UnsupportedModelError(
            "Expected a model with one last layer, but got the mean of several models or views. Explain its members, "
            "or use a method that looks at no layer, e.g. integrated_gradients."
        )


def _last_of(model: nn.Module, finished: list[Watched]) -> str:
    last = finished[-1] if finished else None
    if last is None:
        raise UnsupportedModelError(
            f"Expected `model` to end in a layer with output (N, D, h, w), but found none in {type(model).__name__}. "
            "Use a method that needs no such layer, e.g. integrated_gradients."
        )
    return last[0]


def _note(
    name: str, size: tuple[int, int], finished: list[Watched], _module: nn.Module, _inputs: object, output: object
) -> None:
    if isinstance(output, Tensor) and output.ndim == 4 and _is_grid(output, size):
        finished.append((name, (output.shape[-2], output.shape[-1])))
    elif isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] > 1:
        # A table of tokens: the grid before it, a patch embedding, is not what the classifier sees.
        finished.append(None)


def _is_grid(features: Tensor, size: tuple[int, int]) -> bool:
    height, width = features.shape[-2:]
    # Rounding moves a side by at most one cell, so the two shares may differ by one cell of each.
    slack = 1 / height + 1 / width
    proportional = abs(height * size[1] / (width * size[0]) - 1) <= slack
    return height * width > 1 and height <= size[0] and width <= size[1] and proportional
