"""Split a network into features and head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import (
    Features,
    Layout,
    NamedFeatures,
    TimmFeatures,
    WatchedFeatures,
    channel_dim,
    list_layouts,
    watch_until,
)
from softcam.nn.pruning import list_weighted
from softcam.nn.replay import run_logits, run_until
from softcam.nn.shortcut import Recording, record_outputs, shortcut
from softcam.nn.watch import PoolingWatch

NamedModules = list[tuple[str, nn.Module]]


class Split:
    """A network seen as features and head; the head can be called on any feature map.

    Args:
        network: The black box, in eval mode.
        example: One probe image (1, C, *size).
        shape: Shape of the example's features in the network's own layout.
        tail: Leaf modules with weights or buffers that only the head calls.
        dropout: Probability of the last dropout in the head.
        classifier: Name of the module whose output is the logits; default: what the network returns.
    """

    def __init__(
        self,
        network: nn.Module,
        example: Tensor,
        shape: torch.Size,
        *,
        tail: NamedModules,
        dropout: float,
        classifier: str | None = None,
    ) -> None:
        self.network = network
        self.example = example
        self.shape = shape
        self.tail = tail
        self.dropout = dropout
        self.classifier = classifier
        # Whether the head can be probed only with the whole network in float64.
        self.whole = False

    def head(self, features: Tensor) -> Tensor:
        """Return the logits (N, K) that the black box gives for features in its own layout."""
        raise NotImplementedError

    def extract(self, images: Tensor) -> Any:
        """Return the features of images (N, C, *size) in the network's own layout."""
        raise NotImplementedError

    def features(self, layout: Layout, prefix: int = 0) -> Features:
        """Return the feature extractor, a module."""
        raise NotImplementedError

    @property
    def dims(self) -> int:
        """Number of dimensions of the grid."""
        return self.example.ndim - 2

    def channels(self, layout: Layout) -> int:
        """Return D under a layout."""
        return self.shape[channel_dim(layout)]

    def layouts(self) -> tuple[Layout, ...]:
        """Return the layouts that the shape of the features allows."""
        return list_layouts(len(self.shape), self.dims)

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

    def extract(self, images: Tensor) -> Tensor:
        """Return what `forward_features` gives."""
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return features

    def features(self, layout: Layout, prefix: int = 0) -> Features:
        """Return the extractor around `forward_features`."""
        return TimmFeatures(self.network, layout, prefix)


class ReplacedSplit(Split):
    """Halves of a network that is run whole, with the features put in on the way.

    Modules before the features answer from memory: a head is called many times, the trunk runs once.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._remembered: tuple[torch.dtype, Recording] | None = None

    def head(self, features: Tensor) -> Tensor:
        """Run on the one example image, or, where the code clings to the size of its batch, on as many as features."""
        outputs, skipped = self._remember(features[:1])
        try:
            with shortcut(outputs, 1):
                logits = self._run(features, self.example, skipped)
            if len(logits) == len(features):
                return logits
        except RuntimeError:
            if len(features) == 1:
                raise
        with shortcut(outputs, len(features)):
            return self._run(features, self.example.expand(len(features), *self.example.shape[1:]), skipped)

    def _run(self, features: Tensor, images: Tensor, skipped: int) -> Tensor:
        """Return what the network gives for images, with the features put in; so many reductions before are skipped."""
        raise NotImplementedError

    def _remember(self, features: Tensor) -> Recording:
        # In float64, where the whole network is needed in it, the trunk gives other values.
        dtype = self.example.dtype
        if self._remembered is None or self._remembered[0] != dtype:
            with torch.no_grad():
                self._remembered = dtype, self._record(features)
        return self._remembered[1]

    def _record(self, features: Tensor) -> Recording:
        """Return what modules before the features gave for the example; the head runs on the given features."""
        raise NotImplementedError


class WatchedSplit(ReplacedSplit):
    """Halves on both sides of the last reduction of positions.

    Args:
        number: Number of that call among the reductions in one forward; of the first, where the map is pooled twice.
        options: Arguments of `Split`.
    """

    def __init__(self, *args: Any, number: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.number = number

    def _run(self, features: Tensor, images: Tensor, skipped: int) -> Tensor:
        with PoolingWatch(features, at=self.number - skipped):
            logits: Tensor = run_logits(self.network, images, self.classifier)
        return logits

    def _record(self, features: Tensor) -> Recording:
        watch = PoolingWatch(features, at=self.number)

        def run() -> None:
            with watch:
                run_logits(self.network, self.example, self.classifier)

        return record_outputs(self.network, run, until=lambda: watch.calls > self.number, clock=lambda: watch.calls)

    def extract(self, images: Tensor) -> Tensor | None:
        """Return the input of the last reduction."""
        return watch_until(self.network, images, self.classifier).features

    def features(self, layout: Layout, prefix: int = 0) -> Features:
        """Return the extractor that watches the reductions."""
        return WatchedFeatures(self.network, layout, prefix, until=self.classifier)


class NamedSplit(ReplacedSplit):
    """Halves on both sides of the end of a module that the user named.

    Args:
        name: Dotted name of the module.
        options: Arguments of `Split`.
    """

    def __init__(self, *args: Any, name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name

    def _run(self, features: Tensor, images: Tensor, skipped: int) -> Tensor:  # noqa: ARG002 - none is counted here
        handle = self.network.get_submodule(self.name).register_forward_hook(lambda *_: features)
        try:
            logits: Tensor = run_logits(self.network, images, self.classifier)
        finally:
            handle.remove()
        return logits

    def _record(self, features: Tensor) -> Recording:
        reached: list[bool] = []

        def reach(*_: object) -> Tensor:
            reached.append(True)
            return features

        handle = self.network.get_submodule(self.name).register_forward_hook(reach)
        try:
            run = partial(run_logits, self.network, self.example, self.classifier)
            return record_outputs(self.network, run, until=lambda: bool(reached))
        finally:
            handle.remove()

    def extract(self, images: Tensor) -> Tensor:
        """Return the module's output."""
        return run_until(self.network, self.name, images)

    def features(self, layout: Layout, prefix: int = 0) -> Features:
        """Return the extractor that stops after the module."""
        return NamedFeatures(self.network, layout, prefix, name=self.name)


class SeveralSplit(Split):
    """A network whose `forward_features` gives several maps, each with a share in the logits.

    Args:
        shapes: Shape of each map of the example.
        options: Arguments of `Split`; its shape is that of the last map.
    """

    def __init__(self, *args: Any, shapes: tuple[torch.Size, ...], **options: Any) -> None:
        super().__init__(*args, **options)
        self.shapes = shapes

    def extract(self, images: Tensor) -> Tensor:
        """Return the last of the maps that `forward_features` gives."""
        last: Tensor = self.network.forward_features(images)[-1]  # type: ignore[operator]
        return last

    def head_of(self, maps: list[Tensor]) -> Tensor:
        """Return the logits (N, K) of the maps."""
        logits: Tensor = self.network.forward_head(maps)  # type: ignore[operator]
        return logits


def split_network(
    network: nn.Module, example: Tensor, *, features: str | None = None, classifier: str | None = None
) -> Split:
    """Find the features and the head of a network in eval mode.

    Args:
        network: The black box.
        example: One probe image (1, C, *size).
        features: Name of the module whose output is the feature map; default: found.
        classifier: Name of the module whose output is the logits; default: what the network returns.

    Raises:
        UnsupportedModelError: If there is no feature map with more than one position.
    """
    with torch.no_grad():
        if features is not None:
            split = _split_named(network, example, features, classifier)
        elif classifier is not None:
            split = _split_watched(network, example, classifier)
        else:
            split = _split_timm(network, example) or _split_watched(network, example)
            alone = len(split.shape) == 3 and not _has_positions(split.shape, split.dims)
            if alone and (name := _find_last_map(network, example)) is not None:
                # A network that hands on nothing but its class token (PiT).
                split = _split_named(network, example, name, None)
    if not _has_positions(split.shape, split.dims):
        raise UnsupportedModelError(
            f"Expected a feature map with several positions before the classifier, but got {tuple(split.shape)}. "
            "Use larger images, or a network that keeps its map until the end."
        )
    return split


def _has_positions(shape: torch.Size, dims: int) -> bool:
    return bool(list_layouts(len(shape), dims)) and shape[1:].numel() not in (shape[1], shape[-1])


def _find_last_map(network: nn.Module, example: Tensor) -> str | None:
    """Return the name of the last module to end whose output is a feature map with several positions."""
    ended: list[str] = []
    dims = example.ndim - 2

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and _has_positions(output.shape, dims):
                ended.append(name)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return ended[-1] if ended else None


def _split_timm(network: nn.Module, example: Tensor) -> Split | None:
    if not (callable(getattr(network, "forward_features", None)) and callable(getattr(network, "forward_head", None))):
        return None
    with _called_modules(network) as in_features:
        features = network.forward_features(example)  # type: ignore[operator]
    several = isinstance(features, list | tuple) and len(features) > 1 and all(isinstance(f, Tensor) for f in features)
    if not (isinstance(features, Tensor) or several):
        return None
    before = {name for name, _ in in_features}
    watch = PoolingWatch()
    try:
        with _called_modules(network) as in_head, watch:
            network.forward_head(features)  # type: ignore[operator]
    except (AttributeError, TypeError, RuntimeError):
        if several:
            return None  # the head takes something else than what the features are
        raise
    after = {name for name, _ in in_head} - before
    tail = [(name, module) for name, module in list_weighted(network) if name in after]
    if several:
        shapes = tuple(part.shape for part in features)
        return SeveralSplit(network, example, shapes[-1], tail=tail, dropout=watch.dropout, shapes=shapes)
    return TimmSplit(network, example, features.shape, tail=tail, dropout=watch.dropout)


def _split_watched(network: nn.Module, example: Tensor, classifier: str | None = None) -> Split:
    watch = PoolingWatch()
    with _called_modules(network, clock=lambda: watch.calls) as called:
        watch_until(network, example, classifier, watch)
    if watch.features is None:
        raise UnsupportedModelError(
            "Expected the network to pool or flatten a feature map, or to choose a class token, before its classifier, "
            "but no such call was seen. Name the two modules: `features=` whose output is the feature map, and "
            "`classifier=` whose output is the logits."
        )
    tail = _called_after(network, called, watch.number)
    shape = watch.features.shape
    return WatchedSplit(
        network, example, shape, tail=tail, dropout=watch.dropout, classifier=classifier, number=watch.number
    )


def _split_named(network: nn.Module, example: Tensor, name: str, classifier: str | None) -> Split:
    found = run_until(network, name, example)
    if not isinstance(found, Tensor):
        raise UnsupportedModelError(
            f"Expected `features` to name a module that returns one feature map, but {name!r} returns "
            f"{type(found).__name__}. Name a module inside it."
        )
    watch, reached = PoolingWatch(), []
    handle = network.get_submodule(name).register_forward_hook(lambda *_: reached.append(True))
    try:
        with _called_modules(network, clock=lambda: len(reached)) as called, watch:
            network(example)
    finally:
        handle.remove()
    tail = _called_after(network, called, 0)
    return NamedSplit(network, example, found.shape, tail=tail, dropout=watch.dropout, classifier=classifier, name=name)


def _called_after(network: nn.Module, called: list[tuple[str, int]], reading: int) -> NamedModules:
    first: dict[str, int] = {}
    for name, clock in called:
        first.setdefault(name, clock)
    return [(name, module) for name, module in list_weighted(network) if first.get(name, -1) > reading]


@contextmanager
def _called_modules(network: nn.Module, *, clock: Callable[[], int] = lambda: 0) -> Iterator[list[tuple[str, int]]]:
    """Note the names of modules with weights as they are called, each with the reading of a clock."""
    called: list[tuple[str, int]] = []

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object) -> None:
            called.append((name, clock()))

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in list_weighted(network)]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
