"""Finer maps with the same weights: dilation in the place of stride.

A layer of stride 2 keeps every second of the values it could compute. Take its stride away, spread the kernels of all
later layers over twice the distance, and the network computes the same values and those between them: on every second
cell its features are the old ones. That this holds is verified by numbers, since networks do more than convolve.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.errors import UnsupportedModelError
from softcam.nn.features import map_stride

SAME = 1e-4
"""Largest relative difference on the old cells with which the old features count as kept, in float32."""

DRIFT = 0.1
"""Largest relative difference that is accepted where the network gates its features by their mean over the image."""

Layer = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
Size = tuple[int, int]
Extract = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Refinement:
    """What was done to a network.

    Args:
        stride_before: Input pixels per cell before.
        stride_after: The same afterwards.
        changed: Names of the modules whose stride was taken away.
        drift: Largest difference of the features on the old cells, relative to their largest value.
        notes: What a user should know.
    """

    stride_before: int
    stride_after: int
    changed: tuple[str, ...]
    drift: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """One layer that looks at a grid, with the sizes it was met with."""

    name: str
    module: Layer
    given: Size
    output: Size


def refine(network: nn.Module, images: Tensor, features: Extract, *, stride: int, verify: bool = True) -> Refinement:
    """Give a network a smaller stride by dilation, in place; on failure it is left as it was.

    On the old cells, the new features are compared with the old: all of them, borders included.

    Args:
        network: A copy of the black box, in eval mode.
        images: Probe images (N, C, H, W).
        features: Returns the features (N, D, h, w) of the network for images.
        stride: Wanted input pixels per cell.
        verify: Whether to refuse features that changed; without it, only the number of cells is checked.

    Raises:
        UnsupportedModelError: If the network has no such stride to give up, or if its features would change.
    """
    with torch.no_grad():
        coarse = features(network, images)
        before = _check_stride(coarse, images, stride)
        factor = before // stride
        undo = ExitStack()
        try:
            changed = _dilate(network, images, features, stride, undo)
            fine = features(network, images)
            drift = _compare(fine, coarse, factor, verify=verify)
        except _CannotError as error:
            undo.close()
            raise _refused(str(error), factor) from error
        except (RuntimeError, ValueError) as error:
            undo.close()
            raise _refused(f"the network does not run with it ({error})", factor) from error
    undo.pop_all()
    kept = "the original features are kept on every" if drift <= SAME else f"features drift by {drift:.2g} on every"
    notes = (f"map stride {before} -> {stride} by dilation; {kept} {factor} x {factor} cells",)
    return Refinement(before, stride, tuple(changed), drift, notes)


class _CannotError(Exception):
    """A reason for which a network cannot be refined."""


def _refused(reason: str, factor: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Expected a network whose features survive dilation, but {reason}. "
        f"Use images of {factor} times the size: their maps have {factor} times the cells along each side."
    )


def _check_stride(coarse: Tensor, images: Tensor, stride: int) -> int:
    if coarse.ndim != 4 or images.ndim != 4:
        raise UnsupportedModelError("Expected a network of images for `map_stride`, but got signals or volumes.")
    before = map_stride(images.shape[2:], coarse.shape[2:])[0]
    if stride < 1 or before % stride or before // stride < 2:
        raise UnsupportedModelError(
            f"Expected `map_stride` to be a fraction of the network's {before}, such as {before // 2}, but got "
            f"{stride}."
        )
    return before


def _dilate(network: nn.Module, images: Tensor, features: Extract, stride: int, undo: ExitStack) -> list[str]:
    seen = _watch(network, images, features)
    size = (images.shape[-2], images.shape[-1])
    coarse = [
        layer for layer in seen if max(_pair(layer.module.stride)) > 1 and _stride_of(layer.output, size) > stride
    ]
    if not coarse:
        raise _CannotError("its stride comes from no convolution or pooling layer")
    factors: dict[str, int] = {}
    for layer in seen:
        # How much finer a layer's input gets: by the strides that are taken away before it.
        given, output = _stride_of(layer.given, size), _stride_of(layer.output, size)
        factors[layer.name] = max(1, given // stride)
        if layer.name in {other.name for other in coarse} or factors[layer.name] > 1:
            target = tuple(cells * max(1, output // stride) for cells in layer.output)
            _spread(network, layer, factors[layer.name], (target[0], target[1]), undo)
    return [layer.name for layer in coarse]


def _watch(network: nn.Module, images: Tensor, features: Extract) -> list[_Seen]:
    seen: list[_Seen] = []

    def note(name: str) -> Any:
        def hook(module: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if inputs[0].ndim == 4 and isinstance(output, Tensor):
                seen.append(_Seen(name, module, _grid(inputs[0]), _grid(output)))

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if isinstance(module, Layer):
                stack.callback(module.register_forward_hook(note(name)).remove)
        features(network, images)
    names = [layer.name for layer in seen]
    if len(set(names)) != len(names):
        raise _CannotError("a layer is used at several places")
    return [layer for layer in seen if _stride_of(layer.given, _grid(images)) >= 1]


def _grid(features: Tensor) -> Size:
    return features.shape[-2], features.shape[-1]


def _stride_of(grid: Size, size: Size) -> int:
    return max(map_stride(size, grid))


def _pair(value: Any) -> Size:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _spread(network: nn.Module, layer: _Seen, factor: int, target: Size, undo: ExitStack) -> None:
    """Take a layer's stride away and spread its kernel, so that it gives `target` cells."""
    kernel, dilation = _pair(layer.module.kernel_size), _pair(getattr(layer.module, "dilation", 1))
    reach = tuple(factor * d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    before = tuple(factor * pad for pad in _padding_before(layer))
    given = tuple(factor * cells for cells in layer.given)
    after = tuple(t + r - g - b for t, r, g, b in zip(target, reach, given, before, strict=True))
    if layer.module is not network.get_submodule(layer.name):
        raise _CannotError("a layer is used at several places")
    spread = _Spread(_fill_of(layer.module), (before[1], after[1], before[0], after[0]))
    dilations = (dilation[0] * factor, dilation[1] * factor)
    if isinstance(layer.module, nn.AvgPool2d):
        _replace(network, layer.name, _DilatedMean(kernel, dilations), undo)
    else:
        _set(layer.module, undo, stride=(1, 1), padding=(0, 0), dilation=dilations)
        if isinstance(layer.module, nn.MaxPool2d):
            _set(layer.module, undo, ceil_mode=False)
        elif type(layer.module) is not nn.Conv2d:
            _plain(layer.module, undo)
    handle = network.get_submodule(layer.name).register_forward_pre_hook(spread)
    undo.callback(handle.remove)


def _padding_before(layer: _Seen) -> Size:
    """Return the rows and columns that a layer puts before its input."""
    module = layer.module
    if isinstance(module.padding, str) or _pads_itself(module):
        kernel, stride = _pair(module.kernel_size), _pair(module.stride)
        dilation = _pair(getattr(module, "dilation", 1))
        total = [
            max((cells - 1) * s + d * (k - 1) + 1 - given, 0)
            for cells, s, d, k, given in zip(layer.output, stride, dilation, kernel, layer.given, strict=True)
        ]
        return (total[0] // 2, total[1] // 2)
    return _pair(module.padding)


def _pads_itself(module: Layer) -> bool:
    """Return whether a subclass pads by the size of its input, as TensorFlow's `same` does."""
    return type(module).__name__.endswith("Same")


def _fill_of(module: Layer) -> float:
    return float("-inf") if isinstance(module, nn.MaxPool2d) else 0.0


def _plain(module: nn.Module, undo: ExitStack) -> None:
    """Take a subclass's own padding away; what else it does to its weights cannot be kept."""
    if not _pads_itself(module):  # type: ignore[arg-type]
        return
    before = module.__class__
    base = nn.Conv2d if isinstance(module, nn.Conv2d) else nn.MaxPool2d
    undo.callback(setattr, module, "__class__", before)
    module.__class__ = base


def _set(module: nn.Module, undo: ExitStack, **values: Any) -> None:
    for name, value in values.items():
        undo.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)


def _replace(network: nn.Module, name: str, module: nn.Module, undo: ExitStack) -> None:
    parent, _, child = name.rpartition(".")
    owner = network.get_submodule(parent)
    undo.callback(setattr, owner, child, getattr(owner, child))
    setattr(owner, child, module)


@dataclass(frozen=True)
class _Spread:
    """A hook that pads a layer's input, or cuts it where it is too large.

    Args:
        fill: Value of the padding.
        padding: Columns before and after, rows before and after; negative ones are cut away.
    """

    fill: float
    padding: tuple[int, int, int, int]

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (F.pad(inputs[0], self.padding, value=self.fill), *inputs[1:])


class _DilatedMean(nn.Module):
    """Average pooling of stride 1 over cells some way apart.

    Args:
        kernel: Cells (rows, columns) that are averaged.
        dilation: Distance from one to the next.
    """

    def __init__(self, kernel: Size, dilation: Size) -> None:
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation

    def forward(self, features: Tensor) -> Tensor:
        """Return the means (N, D, h, w)."""
        rows, columns = self.kernel
        weight = features.new_full((features.shape[1], 1, rows, columns), 1 / (rows * columns))
        return F.conv2d(features, weight, dilation=self.dilation, groups=features.shape[1])


def _compare(fine: Tensor, coarse: Tensor, factor: int, *, verify: bool) -> float:
    expected = tuple(cells * factor for cells in coarse.shape[2:])
    if tuple(fine.shape[2:]) != expected:
        raise _CannotError(f"it gives {tuple(fine.shape[2:])} cells instead of {expected}")
    kept = fine[..., ::factor, ::factor]
    drift = float((kept - coarse).abs().max() / coarse.abs().max().clamp_min(torch.finfo(coarse.dtype).tiny))
    tolerance = max(SAME, 8 * torch.finfo(coarse.dtype).eps)
    alike = torch.corrcoef(torch.stack([kept.flatten(), coarse.flatten()]).float())[0, 1]
    if verify and not (drift <= tolerance or (drift <= DRIFT and float(alike) >= 0.99)):
        raise _CannotError(f"on the old cells they differ by {drift:.2g} of their size")
    return drift
