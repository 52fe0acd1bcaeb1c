"""Split a network into features and head, and leave behind what the features do not need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import Features, Layout, TimmFeatures, WatchedFeatures
from softcam.nn.watch import PoolingWatch

NamedModules = list[tuple[str, nn.Module]]


class Split:
    """A network seen as features and head; the head can be called on any feature map.

    Args:
        network: The black box, in eval mode.
        example: One probe image (1, C, H, W).
        shape: Shape of the example's features in the network's own layout.
        tail: Leaf modules with weights or buffers that only the head calls.
        dropout: Probability of the last dropout in the head.
    """

    def __init__(
        self, network: nn.Module, example: Tensor, shape: torch.Size, *, tail: NamedModules, dropout: float
    ) -> None:
        self.network = network
        self.example = example
        self.shape = shape
        self.tail = tail
        self.dropout = dropout
        # Whether the head can be probed only with the whole network in float64.
        self.whole = False

    def head(self, features: Tensor) -> Tensor:
        """Return the logits (N, K) that the black box gives for features in its own layout."""
        raise NotImplementedError

    def features(self, layout: Layout) -> Features:
        """Return the feature extractor."""
        raise NotImplementedError

    def channels(self, layout: Layout) -> int:
        """Return D under a layout."""
        return self.shape[1] if layout == "NCHW" else self.shape[-1]

    def layouts(self) -> tuple[Layout, ...]:
        """Return the layouts that the shape of the features allows."""
        return ("NCHW", "NHWC") if len(self.shape) == 4 else ("NLC",)

    def likely_layout(self) -> Layout:
        """Return the layout for a head that does not tell: by the declared number of features, else by size."""
        declared = getattr(self.network, "num_features", None)
        candidates = [layout for layout in self.layouts() if self.channels(layout) == declared]
        return candidates[0] if candidates else self.layouts()[0]


class TimmSplit(Split):
    """Halves that the network names itself."""

    def head(self, features: Tensor) -> Tensor:
        """Return `forward_head` of the features."""
        logits: Tensor = self.network.forward_head(features)  # type: ignore[operator]
        return logits

    def features(self, layout: Layout) -> Features:
        """Return the extractor around `forward_features`."""
        return TimmFeatures(self.network, layout)


class WatchedSplit(Split):
    """Halves on both sides of the last pooling call.

    Args:
        calls: Number of pooling calls in one forward.
        options: Arguments of `Split`.
    """

    def __init__(self, *args: Any, calls: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls = calls

    def head(self, features: Tensor) -> Tensor:
        """Run the example, put the features in at the last pooling call, and return the logits."""
        with PoolingWatch(features, at=self.calls - 1):
            logits: Tensor = self.network(self.example)
        return logits

    def features(self, layout: Layout) -> Features:
        """Return the extractor that watches the pooling calls."""
        return WatchedFeatures(self.network, layout)


def split_network(network: nn.Module, example: Tensor) -> Split:
    """Find the features and the head of a network in eval mode.

    Args:
        network: The black box.
        example: One probe image (1, C, H, W).

    Raises:
        UnsupportedModelError: If there is no feature map with more than one position.
    """
    with torch.no_grad():
        split = _split_timm(network, example) or _split_watched(network, example)
    if len(split.shape) not in (3, 4) or split.shape[1:].numel() in (split.shape[1], split.shape[-1]):
        raise UnsupportedModelError(
            f"Expected a feature map with several positions before the classifier, but got {tuple(split.shape)}. "
            "Use larger images, or a network that keeps its map until the end."
        )
    return split


def _split_timm(network: nn.Module, example: Tensor) -> Split | None:
    if not (callable(getattr(network, "forward_features", None)) and callable(getattr(network, "forward_head", None))):
        return None
    with _called_modules(network) as in_features:
        features = network.forward_features(example)  # type: ignore[operator]
    if not isinstance(features, Tensor):
        return None
    before = set(in_features)
    watch = PoolingWatch()
    with _called_modules(network) as in_head, watch:
        network.forward_head(features)  # type: ignore[operator]
    tail = [(name, module) for name, module in _weighted(network) if name in in_head and name not in before]
    return TimmSplit(network, example, features.shape, tail=tail, dropout=watch.dropout)


def _split_watched(network: nn.Module, example: Tensor) -> Split:
    order: list[tuple[str, int]] = []
    watch = PoolingWatch()
    with _called_modules(network, order=order, clock=lambda: watch.calls), watch:
        network(example)
    if watch.features is None:
        raise UnsupportedModelError(
            "Expected the network to pool a feature map before its classifier, but no pooling call was seen. "
            "Networks that flatten a fixed grid or read a class token are not mean -> affine."
        )
    first: dict[str, int] = {}
    for name, calls in order:
        first.setdefault(name, calls)
    tail = [(name, module) for name, module in _weighted(network) if first.get(name) == watch.calls]
    shape = watch.features.shape
    return WatchedSplit(network, example, shape, tail=tail, dropout=watch.dropout, calls=watch.calls)


def drop_unused(
    features: Features, tail: NamedModules, example: Tensor
) -> tuple[tuple[int, int], tuple[int, int], tuple[str, ...]]:
    """Replace by `nn.Identity` what the features do not depend on, found by the gradient of the central cell.

    A classifier left inside would never get a gradient, which DDP refuses, and would be stored with every model.
    Weights that cannot be taken out are frozen.

    Args:
        features: The extractor, changed in place.
        tail: Modules of the head.
        example: One probe image (1, C, H, W).

    Returns:
        The extent (height, width) in pixels that the central cell depends on, the grid (h, w), and notes.

    Raises:
        UnsupportedModelError: If no gradient of the features reaches the image.
    """
    images = example.detach().clone().requires_grad_()
    with torch.enable_grad():
        maps = features(images)
        grid = (maps.shape[-2], maps.shape[-1])
        cell = maps[..., grid[0] // 2, grid[1] // 2]
        # Random weights, since a layer norm makes the plain sum over channels constant.
        weights = torch.randn(cell.shape[1], generator=torch.Generator().manual_seed(0)).to(cell)
        gradient = _backward((cell * weights).sum(), images)
    in_tail = {name for name, _ in tail}
    idle = {name for name, module in _weighted(features.network) if _without_gradient(module)}
    replaced = _replace_unused(features, in_tail, idle, example, maps.detach())
    for parameter in features.network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    branches = sorted({name.split(".")[0] for name in replaced - in_tail})
    notes = (f"left behind, as the features do not use it: {', '.join(branches)}",) if branches else ()
    return _extent(gradient), grid, notes


def _backward(value: Tensor, images: Tensor) -> Tensor:
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
    if images.grad is None:
        raise UnsupportedModelError(
            "Expected features that depend on the image by differentiable steps, but no gradient reaches it. "
            "Take `torch.no_grad()` and `detach()` out of the network's forward."
        )
    return images.grad


def _replace_unused(features: Features, tail: set[str], idle: set[str], example: Tensor, expected: Tensor) -> set[str]:
    """Put `nn.Identity` in the place of modules, as many as the features can do without, and return their names."""
    network = features.network
    for names in (tail | idle, tail):
        before = {name: network.get_submodule(name) for name in names}
        _put(network, {name: nn.Identity() for name in names})
        if _same_features(features, example, expected):
            return names
        # Without a gradient but in use, or run through to the end by the forward of a watched network.
        _put(network, before)
    return set()


def _put(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, module)


def _same_features(features: Features, example: Tensor, expected: Tensor) -> bool:
    try:
        with torch.no_grad():
            found = features(example)
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return False
    return torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def _without_gradient(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and all(parameter.grad is None for parameter in own)


def _extent(gradient: Tensor) -> tuple[int, int]:
    touched = gradient.ne(0).any(dim=1)[0]
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    if not len(rows):
        return (0, 0)
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def _weighted(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.named_modules():
        held = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if name and held and not list(module.children()):
            yield name, module


@contextmanager
def _called_modules(
    network: nn.Module, *, order: list[tuple[str, int]] | None = None, clock: Any = lambda: 0
) -> Iterator[list[str]]:
    """Note the names of modules with weights as they are called, each with the reading of a clock."""
    called: list[str] = []
    order = [] if order is None else order

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object) -> None:
            called.append(name)
            order.append((name, clock()))

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in _weighted(network)]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
