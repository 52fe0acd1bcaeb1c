"""Feature extractors: a black box without its pooling and classifier, giving (N, D, *grid)."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.watch import PoolingWatch

Layout = Literal["NCHW", "NHWC", "NLC", "NCL", "NCDHW", "NDHWC"]

GRIDS: dict[int, tuple[Layout, Layout]] = {1: ("NCL", "NLC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}
TOKENS: tuple[Layout, Layout] = ("NLC", "NCL")


def list_layouts(ndim: int, dims: int) -> tuple[Layout, ...]:
    """Return the layouts that features of `ndim` dimensions can have for inputs of `dims` dimensions per channel."""
    if ndim == dims + 2:
        return GRIDS[dims]
    return TOKENS if ndim == 3 else ()


def channel_dim(layout: Layout) -> int:
    """Return the dimension that holds the channels."""
    return layout.index("C")


def position_dims(layout: Layout) -> tuple[int, ...]:
    """Return the dimensions that hold the positions."""
    return tuple(dim for dim, letter in enumerate(layout) if letter not in "NC")


MOST_PREFIX_TOKENS = 17
"""Class and register tokens that are tried where a network does not say how many it has."""


class Features(nn.Module):
    """A network up to its last feature map, with the channels moved to the second place.

    Args:
        network: The black box; parts after the pooling may have been replaced by `nn.Identity`.
        layout: Order of dimensions of the map inside the network.
        prefix: Tokens before those of the grid, which have no place in the image and are left out.
    """

    ends_early = False

    def __init__(self, network: nn.Module, layout: Layout = "NCHW", prefix: int = 0) -> None:
        super().__init__()
        self.network = network
        self.layout: Layout = layout
        self.prefix = prefix

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, D, *grid) of images (N, C, *size)."""
        return to_grid(self.raw(images), self.layout, images.shape[2:], prefix=self.prefix)

    def raw(self, images: Tensor) -> Tensor:
        """Return the features in the network's own layout."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the layout for `repr`."""
        return f"layout={self.layout}" + (f", prefix={self.prefix}" if self.prefix else "")


class TimmFeatures(Features):
    """A network that names its own halves, `forward_features` and `forward_head`, as timm's do."""

    def raw(self, images: Tensor) -> Tensor:
        """Return what `forward_features` gives."""
        output: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return output


class WatchedFeatures(Features):
    """Any network, run as it is; the input of its last pooling, flattening or choice of a token is what comes out.

    Args:
        *args: As in `Features`.
        until: Name of the module before which the watch ends; default: the end of the forward.
        **options: As in `Features`.
    """

    def __init__(self, *args: Any, until: str | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.until = until

    def raw(self, images: Tensor) -> Tensor:
        """Return the input of the last reduction."""
        watch = watch_until(self.network, images, self.until)
        if watch.features is None:
            raise UnsupportedModelError("Expected the network to pool its features, but no pooling call was seen.")
        return watch.features


class NamedFeatures(Features):
    """Any network, run up to the end of the module that was named; what comes after it is not computed.

    Args:
        *args: As in `Features`.
        name: Dotted name of the module; it is told to end the forward there for good.
        **options: As in `Features`.
    """

    ends_early = True

    def __init__(self, *args: Any, name: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.name = name
        last = self.network.get_submodule(name)
        last.__dict__["reached"] = []
        last.register_forward_hook(_end)

    def raw(self, images: Tensor) -> Tensor:
        """Return the module's output."""
        try:
            self.network(images)
        except Reached as reached:
            output: Tensor = reached.args[0]
        else:
            output = self.network.get_submodule(self.name).__dict__["reached"].pop()
        return output


class Reached(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a forward to end it, with what the last module gave."""


def _end(module: nn.Module, _inputs: object, output: Tensor) -> None:
    # A function of the module's own, so that copies of a network end as well. Tracers lose their way when a forward
    # ends early: for them it runs on, through what has been left of it.
    if not torch.compiler.is_compiling():
        raise Reached(output)
    module.__dict__["reached"].append(output)


class StageFeatures(nn.Module):
    """Any network, run up to the last of several modules, whose outputs are the feature maps.

    Args:
        network: The black box; the modules are told to hand their output over for good.
        stages: Name, layout and leading tokens to leave out of each map, in the order in which they are reached.
    """

    ends_early = True

    def __init__(self, network: nn.Module, stages: Sequence[tuple[str, Layout, int]]) -> None:
        super().__init__()
        self.network = network
        self.stages = tuple(stages)
        self.layout: Layout = self.stages[-1][1]
        self.prefix = self.stages[-1][2]
        for name, _, _ in self.stages:
            module = network.get_submodule(name)
            module.__dict__["reached"] = []
            module.register_forward_hook(_end if name == self.stages[-1][0] else _pass)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Leading tokens of each map that are left out."""
        return tuple(prefix for _, _, prefix in self.stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one map (N, D, *grid) per stage of images (N, C, *size)."""
        return tuple(
            to_grid(part, layout, images.shape[2:], prefix=prefix)
            for part, (_, layout, prefix) in zip(self._run(images), self.stages, strict=True)
        )

    def _run(self, images: Tensor) -> list[Tensor]:
        names = [name for name, _, _ in self.stages]
        if torch.compiler.is_compiling():
            self.network(images)
            return [self.network.get_submodule(name).__dict__["reached"].pop() for name in names]
        before = getattr(_PASSED, "maps", None)
        _PASSED.maps = []
        try:
            self.network(images)
        except Reached as reached:
            return [*_PASSED.maps, reached.args[0]]
        finally:
            _PASSED.maps = before
        raise RuntimeError(f"Expected {names[-1]!r} to run in the forward pass, but it did not.")

    def extra_repr(self) -> str:
        """Return the stages for `repr`."""
        return ", ".join(name for name, _, _ in self.stages)


# One list per thread: a server may run a model in several.
_PASSED = threading.local()


def _pass(module: nn.Module, _inputs: object, output: Tensor) -> None:
    if torch.compiler.is_compiling():
        module.__dict__["reached"].append(output)
    elif getattr(_PASSED, "maps", None) is not None:
        _PASSED.maps.append(output)


class SeveralFeatures(nn.Module):
    """A network whose `forward_features` gives several maps, on grids over the image or not.

    Args:
        network: The black box.
        layout: Order of dimensions of all maps inside the network.
        prefixes: Leading tokens of each map to leave out; None for tokens that have no place in the image at all.
    """

    ends_early = False

    def __init__(self, network: nn.Module, layout: Layout, prefixes: Sequence[int | None]) -> None:
        super().__init__()
        self.network = network
        self.layout: Layout = layout
        self.prefixes = tuple(prefixes)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features (N, D, *grid), or (N, D, L, 1) for tokens without a place, of images (N, C, *size)."""
        maps = self.network.forward_features(images)  # type: ignore[operator]
        size = images.shape[2:]
        return tuple(
            _without_grid(part, self.layout, len(size))
            if prefix is None
            else to_grid(part, self.layout, size, prefix=prefix)
            for part, prefix in zip(maps, self.prefixes, strict=True)
        )


def _without_grid(tokens: Tensor, layout: Layout, dims: int) -> Tensor:
    first = tokens if channel_dim(layout) == 1 else tokens.movedim(-1, 1)
    return first.reshape(*first.shape, *[1] * (dims + 2 - first.ndim))


def watch_until(
    network: nn.Module, images: Tensor, until: str | None, watch: PoolingWatch | None = None
) -> PoolingWatch:
    """Run a network and return the watch over its reductions.

    Args:
        network: Any module.
        images: (N, C, *size).
        until: Name of the module before which the watch ends; default: the end of the forward.
        watch: A watch with a substitute; default: a new one.
    """
    watch = watch or PoolingWatch()
    handles = []
    if until is not None:

        def freeze(_module: nn.Module, _inputs: object) -> None:
            watch.freeze()

        handles = [network.get_submodule(until).register_forward_pre_hook(freeze)]
    try:
        with watch:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return watch


def to_grid(features: Tensor, layout: Layout, size: Sequence[int], *, prefix: int = 0) -> Tensor:
    """Return features (N, D, *grid) from the given layout.

    Args:
        features: A map with channels first or last, or tokens.
        layout: Which of these it is.
        size: Height and width (or length, or depth, height, width) of the input, which tell the token grid.
        prefix: Number of leading tokens to leave out.
    """
    if prefix:
        features = features.narrow(position_dims(layout)[0], prefix, features.shape[position_dims(layout)[0]] - prefix)
    first = features if channel_dim(layout) == 1 else features.movedim(-1, 1)
    if first.ndim == len(size) + 2:
        return first
    return first.reshape(first.shape[0], first.shape[1], *token_grid(first.shape[2], *size))


def token_grid(tokens: int, *size: int) -> tuple[int, ...]:
    """Return the grid, e.g. (h, w), of square patches that `tokens` patches of an image form.

    Args:
        tokens: Number of patch tokens.
        *size: Height and width of the image in pixels, or the sizes of a volume.

    Raises:
        UnsupportedModelError: If no grid of square patches has that many tokens.

    Example:
        >>> token_grid(12, 48, 64)
        (3, 4)
    """
    stride = (math.prod(size) / max(tokens, 1)) ** (1 / len(size))
    grid = tuple(round(extent / stride) for extent in size)
    if math.prod(grid) != tokens:
        shown = "x".join(str(extent) for extent in size)
        raise UnsupportedModelError(
            f"Expected {tokens} tokens to form a grid over {shown} px, but {'x'.join(map(str, grid))} does not fit. "
            "The network seems to keep class tokens among its patches; these have no place in the image."
        )
    return grid


def map_stride(size: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
    """Return the input pixels from one cell to the next along each dimension.

    Layers of stride 2 round up, so that `size / grid` says too little: 224 px in 4 cells is stride 64. A stride is
    taken for all dimensions that explains the grid by rounding up, a power of two if there is one.

    Args:
        size: Height and width of the image in pixels, or the sizes of a signal or volume.
        grid: Cells along them.

    Example:
        >>> map_stride((224, 224), (4, 4))
        (64, 64)
    """
    pairs = list(zip(size, grid, strict=True))
    lowest = max(-(-extent // cells) for extent, cells in pairs)
    fitting = [s for s in range(lowest, 2 * lowest) if all(-(-extent // s) == cells for extent, cells in pairs)]
    powers = [s for s in fitting if s & (s - 1) == 0]
    if fitting:
        return (min(powers or fitting),) * len(pairs)
    return tuple(max(1, round(extent / cells)) for extent, cells in pairs)


def count_prefix(network: nn.Module, tokens: int, size: Sequence[int]) -> int:
    """Return the leading tokens without a place: as many as a network says, else as few as leave a grid of patches.

    Args:
        network: It may have an attribute `num_prefix_tokens`.
        tokens: Number of tokens in all.
        size: Height and width of the image in pixels, or the sizes of a volume.
    """
    declared = getattr(network, "num_prefix_tokens", None)
    for prefix in [declared] if isinstance(declared, int) else range(min(tokens, MOST_PREFIX_TOKENS)):
        try:
            token_grid(tokens - prefix, *size)
        except UnsupportedModelError:
            continue
        return prefix
    return 0


def as_parts(features: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return what an extractor gives as a tuple, also where it is one feature map."""
    return features if isinstance(features, tuple) else (features,)
