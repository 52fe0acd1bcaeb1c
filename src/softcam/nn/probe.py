"""Judge what a head computes by calling it on synthetic features in float64, and fold it if it is affine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softcam.nn.features import Layout
from softcam.nn.split import Split

TOLERANCE = 1e-9
"""Relative; float64 rounding of a head stays near 1e-15, the smallest nonlinearity that was met is near 1e-3."""


@dataclass(frozen=True)
class Verdict:
    """What the probes found.

    Args:
        layout: The layout under which the head sees nothing but the mean over positions; None if there is none.
        affine: Whether the head is affine in that mean.
        found: The finding in words.
    """

    layout: Layout | None
    affine: bool
    found: str


def judge_head(split: Split) -> Verdict:
    """Return whether the head is mean -> affine, and in which layout it reads the features."""
    try:
        return _judge_in_double(split)
    except RuntimeError:
        # A head may use weights that belong to no module of its own; the whole network in float64 takes longer.
        split.whole = True
    try:
        return _judge_in_double(split)
    except RuntimeError as error:
        # A head that fixes the batch size, or that reaches back into the trunk, cannot be probed.
        return Verdict(None, affine=False, found=f"the head does not run on features alone ({error}).")


def _judge_in_double(split: Split) -> Verdict:
    with torch.no_grad(), _double_head(split, randomise=True):
        return _judge(split)


def _judge(split: Split) -> Verdict:
    layout = next((layout for layout in split.layouts() if _sees_only_mean(split, layout)), None)
    if layout is None:
        return Verdict(None, affine=False, found="the head sees more of the features than their mean over positions.")
    if not _is_affine(split, layout):
        return Verdict(layout, affine=False, found="the head is not affine in the pooled features.")
    return Verdict(layout, affine=True, found="it is.")


def fold_affine(split: Split, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return (weight (K, D), bias (K,)) in float64 of a head that is affine in the mean over positions."""
    channels = split.channels(layout)
    device = split.example.device
    identity = torch.eye(channels, dtype=torch.float64, device=device)
    rows = torch.cat([identity.new_zeros(1, channels), identity])
    with torch.no_grad(), _double_head(split):
        logits = split.head(_at_positions(rows, split, layout))
    return (logits[1:] - logits[0]).T.contiguous(), logits[0]


def _sees_only_mean(split: Split, layout: Layout) -> bool:
    features = _noise(4, split).double() * 3
    positions = _position_dims(layout)
    pooled = features.mean(positions, keepdim=True).expand_as(features).clone()
    logits = split.head(torch.cat([features, pooled]))
    return _close(logits[:4], logits[4:])


def _is_affine(split: Split, layout: Layout) -> bool:
    # Several scales: an activation that saturates, or that is linear around zero, must not pass.
    scales = torch.tensor([0.1, 1.0, 10.0, 100.0], dtype=torch.float64, device=split.example.device)
    shape = (4, split.channels(layout))
    a, b = (_randn(shape, seed, split) * scales[:, None] for seed in (1, 2))
    rows = torch.cat([a, b, 0.3 * a + 0.7 * b])
    logits = split.head(_at_positions(rows, split, layout))
    return _close(0.3 * logits[:4] + 0.7 * logits[4:8], logits[8:])


def _at_positions(rows: Tensor, split: Split, layout: Layout) -> Tensor:
    """Return features in the network's layout that hold `rows` (B, D) at every position."""
    positions = _position_dims(layout)
    # The grid of the probe image, since a pooling with a fixed window takes no other.
    sizes = [split.shape[dim] if dim in positions else -1 for dim in range(len(split.shape))]
    for dim in positions:
        rows = rows.unsqueeze(dim)
    return rows.expand(sizes)


def _position_dims(layout: Layout) -> tuple[int, ...]:
    return {"NCHW": (2, 3), "NHWC": (1, 2), "NLC": (1,)}[layout]


def _noise(count: int, split: Split) -> Tensor:
    return _randn((count, *split.shape[1:]), 0, split)


def _randn(shape: tuple[int, ...], seed: int, split: Split) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(split.example.device)


def _close(a: Tensor, b: Tensor) -> bool:
    scale = torch.maximum(a.abs().max(), b.abs().max())
    return bool(scale > 0) and bool((a - b).abs().max() <= TOLERANCE * scale)


@contextmanager
def _double_head(split: Split, *, randomise: bool = False) -> Iterator[None]:
    """Run the head in float64; optionally give its zero-initialised weights values, to see through them."""
    modules = [split.network] if split.whole else [module for _, module in split.tail]
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    saved = [(tensor, tensor.data) for tensor in tensors if tensor.is_floating_point()]
    example = split.example
    for tensor, values in saved:
        tensor.data = values.to(torch.float64, copy=True)
    split.example = example.double() if split.whole else example
    if randomise:
        for _, module in split.tail:
            _fill_zeros(module)
    try:
        yield
    finally:
        split.example = example
        for tensor, values in saved:
            tensor.data = values


def _fill_zeros(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(values.to(parameter.device))
