"""Places inside a network where a class evidence layer can sit: the outputs of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import (
    GRIDS,
    TOKENS,
    Layout,
    NamedFeatures,
    StageFeatures,
    channel_dim,
    count_prefix,
    map_stride,
    position_dims,
    token_grid,
)
from softcam.nn.heads import EvidenceHead, LinearEvidence, PointwiseEvidence
from softcam.nn.heads.base import CONVOLUTIONS
from softcam.nn.replay import run_until
from softcam.nn.stack import BATCH_NORMS

Place = int | str

RATIO = 1.25
"""Largest ratio of a cell's sides: at the border, cells may stand for less."""

HIDDEN = 256
"""Most channels of a hidden layer of a new stack: at 16 px per cell it costs a few percent of the trunk before it."""


@dataclass(frozen=True)
class Stage:
    """The output of a module, seen as a feature map over the image.

    Args:
        name: Dotted name of the module.
        layout: Order of dimensions of its output.
        prefix: Leading tokens without a place in the image.
        channels: D.
        grid: Cells, e.g. (h, w).
    """

    name: str
    layout: Layout
    prefix: int
    channels: int
    grid: tuple[int, ...]

    def stride(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the input pixels from one cell to the next, for images of a size."""
        return map_stride(size, self.grid)


def find_stages(network: nn.Module, example: Tensor, places: Sequence[Place]) -> tuple[Stage, ...]:
    """Return the stages at the given places, in the order in which the network reaches them.

    Args:
        network: The black box, in eval mode.
        example: One probe image (1, C, *size).
        places: Strides in pixels, meaning the deepest features of that stride, or dotted names of modules.

    Raises:
        UnsupportedModelError: If there is no such stage, if its output is no feature map, or if the network has ways
            around it.
    """
    ended = _list_ended(network, example)
    stages = [
        _find_stride(network, example, ended, place)
        if isinstance(place, int)
        else _named(network, example, ended, place)
        for place in places
    ]
    if len({stage.name for stage in stages}) != len(stages):
        raise UnsupportedModelError(f"Expected `at` to name different stages, but got {', '.join(map(str, places))}.")
    order = [name for name, _ in ended]
    return tuple(sorted(stages, key=lambda stage: order.index(stage.name)))


def list_strides(network: nn.Module, example: Tensor) -> tuple[Stage, ...]:
    """Return the deepest stage of every stride at which a class evidence layer can sit, from fine to coarse.

    Args:
        network: The black box, in eval mode.
        example: One probe image (1, C, *size).
    """
    ended = _list_ended(network, example)
    size = tuple(example.shape[2:])
    strides = {stage.stride(size) for _, stage in ended if stage is not None and max(stage.grid) > 1}
    found = []
    for stride in sorted(stride[0] for stride in strides if len(set(stride)) == 1 and stride[0] > 1):
        try:
            found.append(_find_stride(network, example, ended, stride))
        except UnsupportedModelError:
            continue
    return tuple(found)


def comes_before(network: nn.Module, example: Tensor, first: str, second: str) -> bool:
    """Return whether the network reaches the end of module `first` before the end of another one, `second`.

    Args:
        network: The black box, in eval mode.
        example: One probe image (1, C, *size).
        first: Dotted name of a module that runs.
        second: Another one.

    Raises:
        ValueError: If one of them does not run.
    """
    order = [name for name, _ in _list_ended(network, example)]
    for name in (first, second):
        if name not in order:
            raise ValueError(f"Expected a module that runs, but got {name!r}.")
    return order.index(first) < order.index(second)


def _list_ended(network: nn.Module, example: Tensor) -> list[tuple[str, Stage | None]]:
    """Return the modules in the order in which they end, each with its output as a stage if it is a feature map."""
    ended: list[tuple[str, Stage | None]] = []

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            ended.append((name, read_stage(name, output, network, example)))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return ended


def read_stage(name: str, output: object, network: nn.Module, example: Tensor) -> Stage | None:
    """Return the output of a module as a stage, or None if it is not a feature map over the image.

    Channels first and channels last are told apart by the grid: its cells have to be square.
    """
    size = tuple(example.shape[2:])
    if not isinstance(output, Tensor) or output.shape[:1] != (1,) or output.ndim not in (3, len(size) + 2):
        return None
    for layout in GRIDS[len(size)] if output.ndim == len(size) + 2 else TOKENS:
        prefix = 0
        grid = tuple(output.shape[dim] for dim in position_dims(layout))
        if len(grid) < len(size):
            prefix = count_prefix(network, grid[0], size)
            try:
                grid = token_grid(grid[0] - prefix, *size)
            except UnsupportedModelError:
                continue
        if _is_over(grid, size):
            return Stage(name, layout, prefix, output.shape[channel_dim(layout)], grid)
    return None


def _is_over(grid: tuple[int, ...], size: tuple[int, ...]) -> bool:
    if any(cells > extent for extent, cells in zip(size, grid, strict=True)):
        return False
    strides = map_stride(size, grid)
    return max(strides) <= RATIO * min(strides)


def _find_stride(network: nn.Module, example: Tensor, ended: list[tuple[str, Stage | None]], stride: int) -> Stage:
    size = tuple(example.shape[2:])
    known = {stage.stride(size)[0] for _, stage in ended if stage is not None}
    fitting = [stage for _, stage in ended if stage is not None and set(stage.stride(size)) == {stride}]
    # Whole stages before the layers inside the next one, which may widen the features before they lower the stride.
    for _, stage in sorted(enumerate(fitting), key=lambda pair: (pair[1].name.count("."), -pair[0])):
        if is_cut(network, stage.name, example):
            return stage
    shown = ", ".join(str(value) for value in sorted(known) if value > 1)
    raise UnsupportedModelError(f"Expected `at` to be a stride of the network, but got {stride}. It has: {shown}.")


def _named(network: nn.Module, example: Tensor, ended: list[tuple[str, Stage | None]], name: str) -> Stage:
    stages = dict(ended)
    if name not in stages:
        known = ", ".join(key for key, stage in ended if stage is not None and key.count(".") <= 1)
        raise UnsupportedModelError(
            f"Expected `at` to name a module that runs, but got {name!r}. Choose among: {known}."
        )
    stage = stages[name]
    if stage is None:
        raise UnsupportedModelError(
            f"Expected `at` to name a module whose output is one feature map over the image, but {name!r} gives none."
        )
    if not is_cut(network, name, example):
        raise UnsupportedModelError(
            f"Expected {name!r} to be the only way through the network, but later layers also see earlier ones. "
            "Choose the output of a whole stage or block."
        )
    return stage


def is_cut(network: nn.Module, name: str, example: Tensor, *, tolerance: float = 1e-4) -> bool:
    """Return whether everything after a module depends on the image through its output alone.

    Args:
        network: The black box, in eval mode.
        name: Dotted name of the module.
        example: One probe image (1, C, *size).
        tolerance: Largest accepted difference of the network's output relative to its largest absolute value.
    """
    generator = torch.Generator().manual_seed(11)
    other = torch.randn(example.shape, generator=generator, dtype=torch.float32).to(example)
    with torch.no_grad():
        activation = run_until(network, name, example)
        expected, different = _flat(network(example)), _flat(network(other))
        handle = network.get_submodule(name).register_forward_hook(lambda *_: activation)
        try:
            found = _flat(network(other))
        except RuntimeError:
            return False
        finally:
            handle.remove()
    if found.shape != expected.shape or torch.equal(expected, different):
        return False
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def create_stage_features(network: nn.Module, stages: Sequence[Stage]) -> NamedFeatures | StageFeatures:
    """Return the extractor of one stage's features, or of several."""
    if len(stages) == 1:
        return NamedFeatures(network, stages[0].layout, stages[0].prefix, name=stages[0].name)
    return StageFeatures(network, [(stage.name, stage.layout, stage.prefix) for stage in stages])


def _flat(output: Any) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(output)  # noqa: SLF001 - the only public function of it is torch's own
    return torch.cat([leaf.flatten().double() for leaf in leaves if isinstance(leaf, Tensor)])


def create_head(channels: int, num_classes: int, *, layers: int, dims: int, dropout: float = 0.0) -> EvidenceHead:
    """Return a new class evidence layer of one or more 1x1 layers, which adds no receptive field.

    Args:
        channels: D, channels of the features.
        num_classes: K, number of classes.
        layers: Number of 1x1 convolutions; all but the last are followed by batch norm and ReLU.
        dims: Number of dimensions of the grid.
        dropout: Probability in [0, 1) of dropping a channel before the last of them.

    Raises:
        ValueError: If `layers` is below 1.
    """
    if layers < 1:
        raise ValueError(f"Expected `layers` to be >= 1, but got {layers}.")
    if layers == 1:
        return LinearEvidence(channels, num_classes, dropout=dropout, dims=dims)
    hidden = min(channels, HIDDEN)
    body: list[nn.Module] = []
    for width in [channels] + [hidden] * (layers - 2):
        body += [CONVOLUTIONS[dims](width, hidden, kernel_size=1, bias=False), BATCH_NORMS[dims](hidden), nn.ReLU()]
    return PointwiseEvidence(nn.Sequential(*body), channels, hidden, num_classes, dropout=dropout, dims=dims)
