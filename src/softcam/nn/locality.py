"""How far a cell of a feature map can see: the receptive field that a network's layers allow, whatever its weights."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.features import to_grid
from softcam.nn.intake import check_images, copy_network, unwrap
from softcam.nn.model import SoftCAM
from softcam.nn.modes import evaluating
from softcam.nn.replay import run_until
from softcam.nn.stages import Place, find_stages, read_stage

Run = Callable[[Tensor], tuple[Tensor, ...]]
Bounds = tuple[int, int]

LIMIT = 4096
"""Pixels up to which a bound is looked for by default. DenseNet-121, among the widest, sees 2071."""

SHORTEST = 128
THIN = (32, 96)
"""Pixels across a strip: as few as five halvings leave something of, with padding or without."""

REFUSALS = (RuntimeError, AssertionError, ValueError, LookupError, TypeError, UnsupportedModelError)
"""What networks raise for images of another size than theirs."""


@dataclass(frozen=True)
class _Seen:
    """What central cells see along one dimension of a strip.

    Args:
        extent: Pixels along it; 0 where no strip was long enough.
        bounds: First and last pixel that is seen, one pair per feature map; empty where they lie outside.
    """

    extent: int
    bounds: tuple[Bounds, ...] = ()

    @property
    def width(self) -> float:
        """Pixels that the map that sees furthest sees."""
        return max((max(0, last - first + 1) for first, last in self.bounds), default=math.inf)


def theoretical_receptive_field(
    network: nn.Module, example: Tensor, *, until: Place | None = None, limit: int = LIMIT
) -> tuple[float, ...]:
    """Return the extent in pixels of all that the central cell of a feature map can depend on.

    Not a number is what almost every operation hands on: the pixels of one side of an image are set to it, up to a
    column that is found by bisection, and the cell is watched. So the field follows from what runs, for any layers and
    branches, and does not depend on the weights: one of 0 counts. The images are noise in strips, long in one
    dimension and thin in the others, and are lengthened until the whole field lies inside them; nothing further away
    matters in the longest of them either.

    Global steps (squeeze-and-excitation, attention, group norm, pooling that is fed back) let each cell see everything.
    Interpolation counts neighbours that it weighs with 0. The few operations that take no notice of such values
    (`nan_to_num`, choices by comparison) hide what they depend on.

    Args:
        network: A SoftCAM model, whose features are measured (a head that attends over the image or divides by a norm
            of the pooled vector scales all cells by what it sees of the whole), or any network; read in eval mode.
        example: One image (1, C, *size) or more, that tell channels, dtype, device and a size that the network takes.
        until: Module, or stride in pixels (as `at` of `convert`), whose output is the feature map; default: of a
            SoftCAM model its features, the widest field of several, of a network what it returns.
        limit: Longest side in pixels of the strips.

    Returns:
        One number per dimension, e.g. (height, width): whole pixels, 0 without dependence on the image; `inf` where
        the cell still sees the border of the longest strip that the network takes.

    Raises:
        UnsupportedModelError: If there is no feature map, or if it is not finite for images of noise.
        TypeError: If `example` is no tensor.
        ValueError: If `example` is no batch of images, `limit` is below 128 or `until` names no module that runs.

    Reference: Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks", Distill.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        >>> theoretical_receptive_field(layers, torch.zeros(1, 3, 64, 64))
        (5, 5)
    """
    if limit < SHORTEST:
        raise ValueError(f"Expected `limit` to be at least {SHORTEST} pixels, but got {limit}.")
    network = unwrap(network)
    check_images(example, network)
    if example.dtype not in (torch.float32, torch.float64):
        # Kernels of half precision multiply neighbours by 0 where they pad pairs of numbers.
        network, example = copy_network(network).float(), example.float()
    # Fast algorithms of cuDNN compute neighbouring cells from sums of both.
    with evaluating(network), torch.no_grad(), torch.backends.cudnn.flags(enabled=False):
        run = _create_run(network, example[:1], until)
        run(example[:1])
        seen: list[_Seen] = []
        for dim in range(2, example.ndim):
            seen.append(_measure(run, example[:1], dim, limit, seen[-1] if seen else _Seen(0)))
    return tuple(field.width for field in seen)


def _create_run(network: nn.Module, example: Tensor, until: Place | None) -> Run:
    """Return what gives the feature maps (1, D, *grid) of images of any size."""
    if isinstance(until, int):
        until = find_stages(network, example, (until,))[0].name
    if until is not None:
        return _run_place(network, example, until)
    features = network.features if isinstance(network, SoftCAM) else network

    def run(images: Tensor) -> tuple[Tensor, ...]:
        output = features(images)
        parts: tuple[object, ...] = output if isinstance(output, tuple) else (output,)
        maps = tuple(part for part in parts if isinstance(part, Tensor) and part.ndim == images.ndim)
        if not maps:
            raise UnsupportedModelError(
                "Expected the network to return a feature map, (N, D, h, w) for images, but it gives none. "
                "Name the module that does with `until=`."
            )
        return maps

    return run


def _run_place(network: nn.Module, example: Tensor, name: str) -> Run:
    inner = network.features.network if isinstance(network, SoftCAM) else network
    # Read from the example: of thin strips, cells at the border may look oblong.
    stage = read_stage(name, run_until(network, name, example), inner, example)
    if stage is None:
        raise UnsupportedModelError(
            f"Expected `until` to name a module whose output is one feature map over the image, but {name!r} gives "
            "none. Choose the output of a stage."
        )
    layout, prefix = stage.layout, stage.prefix
    return lambda images: (to_grid(run_until(network, name, images), layout, images.shape[2:], prefix=prefix),)


def _measure(run: Run, example: Tensor, dim: int, limit: int, hint: _Seen) -> _Seen:
    """Return what central cells see along one dimension; along another it is `hint`, which is tried first."""
    reached = False
    reason: Exception | None = None
    for extent in _list_extents(example.shape[dim], limit, hint.extent):
        try:
            image, count = _make_strip(run, example, dim, extent)
        except REFUSALS as error:
            reason = error
            continue
        reached = True
        guesses = hint.bounds if hint.extent == extent else ()
        bounds = [_find_bounds(run, image, dim, part, guesses[part : part + 1]) for part in range(count)]
        inside = tuple(pair for pair in bounds if pair is not None)
        if len(inside) == count and _is_confined(run, example, dim, extent, limit):
            return _Seen(extent, inside)
    if not reached:
        raise UnsupportedModelError(
            f"Expected a feature map of images like {tuple(example.shape)}, but the network raised: {reason} "
            "Pass an `example` as it expects them."
        ) from reason
    return _Seen(0)


def _list_extents(native: int, limit: int, likely: int) -> list[int]:
    doubled = {SHORTEST << power for power in range((limit // SHORTEST).bit_length())}
    return sorted(doubled | {min(native, limit)}, key=lambda extent: (extent < likely, extent))


def _is_confined(run: Run, example: Tensor, dim: int, extent: int, limit: int) -> bool:
    """Return whether central cells see nothing beyond `extent` around them either, in the longest strip there is.

    Dilated layers leave holes in a field, through which they reach past the borders of a strip.
    """
    kept = extent + extent // 2
    for longest in reversed(_list_extents(example.shape[dim], limit, 0)):
        if longest <= kept:
            break
        with suppress(*REFUSALS):
            image, _ = _make_strip(run, example, dim, longest)
            marked = torch.full_like(image, torch.nan)
            middle = (dim, (longest - kept) // 2, kept)
            marked.narrow(*middle).copy_(image.narrow(*middle))
            return not any(_central(part).isnan().any() for part in run(marked))
    return True


def _make_strip(run: Run, example: Tensor, dim: int, extent: int) -> tuple[Tensor, int]:
    """Return noise that is long in one dimension, and how many feature maps the network makes of it."""
    native = tuple(example.shape[2:])
    for thin in THIN:
        with suppress(*REFUSALS):
            return _try_strip(run, example, _with_side([min(thin, side) for side in native], dim, extent))
    return _try_strip(run, example, _with_side(native, dim, extent))


def _with_side(size: Sequence[int], dim: int, extent: int) -> tuple[int, ...]:
    return (*size[: dim - 2], extent, *size[dim - 1 :])


def _try_strip(run: Run, example: Tensor, size: tuple[int, ...]) -> tuple[Tensor, int]:
    noise = torch.randn(1, example.shape[1], *size, generator=torch.Generator().manual_seed(0)).to(example)
    maps = run(noise)
    if not all(part.isfinite().all() for part in maps):
        raise UnsupportedModelError("Expected finite features of noise, but got NaN or infinity. Check the weights.")
    return noise, len(maps)


def _find_bounds(run: Run, image: Tensor, dim: int, part: int, guess: Sequence[Bounds]) -> Bounds | None:
    """Return the first and last pixel along a dimension that the central cell sees; None if they may lie outside."""
    extent = image.shape[dim]

    def sees(start: int, stop: int) -> bool:
        marked = image.clone()
        marked.narrow(dim, start, stop - start).fill_(torch.nan)
        return bool(_central(run(marked)[part]).isnan().any())

    if sees(0, 1) or sees(extent - 1, extent):
        return None
    for bounds in (*guess, *(() if guess else _guess_bounds(run, image, dim, part))):
        first, last = bounds
        sides = [(0, first + 1), (0, first), (last, extent), (last + 1, extent)]
        if first <= last and [sees(*side) for side in sides] == [True, False] * 2:
            return bounds
    first = bisect_left(range(extent), x=True, key=lambda pixel: sees(0, pixel + 1))
    back = bisect_left(range(extent), x=True, key=lambda pixel: sees(extent - 1 - pixel, extent))
    return first, extent - 1 - back


def _guess_bounds(run: Run, image: Tensor, dim: int, part: int) -> tuple[Bounds, ...]:
    """Return the first and last pixel to which the central cell has a gradient: mostly all that it sees."""
    with suppress(*REFUSALS), torch.enable_grad():
        pixels = image.clone().requires_grad_()
        cell = _central(run(pixels)[part])
        # Random weights, since a norm makes the plain sum over channels constant.
        weights = torch.randn(cell.shape, generator=torch.Generator().manual_seed(0)).to(cell)
        (gradient,) = torch.autograd.grad((cell * weights).sum(), pixels)
        seen = gradient.ne(0).movedim(dim, 0).flatten(1).any(1).nonzero()
        if len(seen):
            return ((int(seen[0]), int(seen[-1])),)
    return ()


def _central(features: Tensor) -> Tensor:
    for cells in features.shape[2:]:
        features = features.select(2, cells // 2)
    return features
