"""Judge what a head computes by calling it on synthetic features in float64, and fold it if it is affine.

A head is described by what it sees of the features (their mean or maximum over positions, or more than that) and by
what it makes of that vector (an affine map, a norm and an affine map, or something else). Everything is decided by
numbers: on the real features of a network, which vary little over positions, a nonlinear head can pass for an affine
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from softcam.nn.features import Layout, channel_dim, count_prefix, position_dims
from softcam.nn.heads import EvidenceHead, LinearEvidence, NormEvidence
from softcam.nn.heads.pooled import Pooling, Statistic
from softcam.nn.split import Split

TOLERANCE = 1e-9
"""Relative; float64 rounding of a head stays near 1e-15, the smallest nonlinearity that was met is near 1e-3."""

BLOCK = 2**22
"""Values of the features that a head is called on at once, 32 MiB; some hold several times as much inside."""

MIXTURES = 8
"""Random sums of the logits by which a norm is recognised."""

Form = Literal["affine", "norm", "other"]

POOLINGS: tuple[Pooling, ...] = ("avg", "max", "avgmax")


@dataclass(frozen=True)
class Verdict:
    """What the probes found.

    Args:
        layout: Order of dimensions in which the head reads the features.
        prefix: Leading tokens that have no place in the image.
        pooling: What the head sees of the features; None if it is not a pooling.
        form: What the head makes of one vector, if every position holds it.
        found: The finding in words.
        statistic: For a norm, what it divides by.
        eps: For a norm, what it adds to that.
    """

    layout: Layout
    prefix: int
    pooling: Pooling | None
    form: Form
    found: str
    statistic: Statistic = "variance"
    eps: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether maps can average to the same logits."""
        return self.pooling is not None and self.form != "other"


def judge_head(split: Split) -> Verdict:
    """Return what the head sees and computes.

    Raises:
        ValueError: If the head cannot be run on features alone.
        MemoryError: If there is too little memory for it, which says nothing about the head.
    """
    try:
        return _judge_in_double(split)
    except (RuntimeError, TypeError, AssertionError):
        # A head may use weights that belong to no module of its own; the whole network in float64 takes longer.
        split.whole = True
    try:
        return _judge_in_double(split)
    except (RuntimeError, TypeError, AssertionError) as error:
        if _lacks_memory(error):
            raise MemoryError(
                f"Expected memory to judge the network's head in float64, but got too little ({error}). "
                "Free some, or convert on a larger machine."
            ) from error
        # A head that fixes the batch size, or that reaches back into the trunk, cannot be probed.
        raise ValueError(f"the head does not run on features alone ({error})") from error


def _lacks_memory(error: Exception) -> bool:
    # On the CPU torch has no type of its own for it.
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)


def _judge_in_double(split: Split) -> Verdict:
    with torch.no_grad(), double_head(split, randomise=True):
        return _judge(split)


def _judge(split: Split) -> Verdict:
    for layout in split.layouts():
        prefix, positions = _seen_tokens(split, layout)
        for pooling in POOLINGS if positions else ():
            if _sees_only(split, layout, prefix, pooling):
                return _judge_form(split, Verdict(layout, prefix, pooling, "other", ""))
        if positions and _sees_mean_and_maximum(split, layout, prefix):
            return Verdict(layout, prefix, "catavgmax", "affine", "it is.")
    layout = split.likely_layout()
    found = "the head sees more of the features than their mean over positions."
    tokens = len(split.shape) == 3 and split.dims > 1
    prefix = (
        count_prefix(split.network, split.shape[position_dims(layout)[0]], split.example.shape[2:]) if tokens else 0
    )
    verdict = Verdict(layout, prefix, None, "other", found)
    return _judge_form(split, verdict)


def _judge_form(split: Split, verdict: Verdict) -> Verdict:
    """Return the verdict with what the head makes of features that are the same everywhere."""
    said = verdict.found
    if _is_affine(split, verdict.layout):
        return replace(verdict, form="affine", found=said or "it is.")
    if (norm := _fit_norm(split, verdict.layout)) is not None:
        return replace(verdict, form="norm", found=said or "it is.", statistic=norm[0], eps=norm[1])
    return replace(verdict, form="other", found=said or "the head is not affine in the pooled features.")


def _seen_tokens(split: Split, layout: Layout) -> tuple[int, bool]:
    """Return the leading tokens that the head ignores, and whether it sees all positions after them."""
    if len(split.shape) != 3 or split.dims == 1:
        return 0, True
    with torch.enable_grad():
        features = _noise(1, split).requires_grad_()
        logits = split.head(features)
        if not logits.requires_grad:
            return 0, False
        (gradient,) = torch.autograd.grad(_weigh(logits), features)
    seen = gradient.ne(0).any(channel_dim(layout))[0]
    first = int(seen.to(torch.uint8).argmax())
    return first, bool(seen[first:].all())


def build_head(split: Split, verdict: Verdict, *, filled: bool = True) -> EvidenceHead:
    """Return the class evidence layer of a head that is affine, or a norm and affine, on constant features.

    Where it is affine and is not to be `filled`, the layer has one class and knows nothing.
    """
    options: dict[str, Any] = {"dropout": split.dropout, "dims": split.dims}
    pooling = verdict.pooling or "avg"
    if verdict.form == "norm":
        weight, bias = _fold_norm(split, verdict)
        with torch.device("meta"):
            shape = (weight.shape[1], weight.shape[0])
            norm = NormEvidence(*shape, statistic=verdict.statistic, eps=verdict.eps, pooling=pooling, **options)
        return norm.set_classifier(weight, bias)
    if not filled:
        width = split.channels(verdict.layout) * (2 if pooling == "catavgmax" else 1)
        weight = torch.zeros(1, width, dtype=torch.float64, device=split.example.device)
        return LinearEvidence.from_affine(weight, weight[:, 0], pooling=pooling, **options)
    with torch.no_grad(), double_head(split):
        weight, bias = _fold(split, verdict.layout)
        if pooling == "catavgmax":
            highest = _fold_maximum(split, verdict.layout, bias)
            weight = torch.cat([weight - highest, highest], dim=1)
    return LinearEvidence.from_affine(weight, bias, pooling=pooling, **options)


def _fold(split: Split, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return weight (K, D) and bias (K,) of a head that is affine in features that are the same everywhere."""
    channels, device = split.channels(layout), split.example.device
    bias = split.head(at_positions(torch.zeros(1, channels, dtype=torch.float64, device=device), split, layout))[0]
    weight = torch.empty(len(bias), channels, dtype=torch.float64, device=device)
    for columns in _blocks(channels, split):
        rows = nn.functional.one_hot(columns, channels).double()
        weight[:, columns] = (split.head(at_positions(rows, split, layout)) - bias).T
    return weight, bias.clone()


def _blocks(count: int, split: Split) -> Iterator[Tensor]:
    """Yield the indices below `count`, as many at once as the head may be called on."""
    most = max(1, BLOCK // prod(split.shape[1:]))
    for start in range(0, count, most):
        yield torch.arange(start, min(start + most, count), device=split.example.device)


def _fold_maximum(split: Split, layout: Layout, bias: Tensor) -> Tensor:
    """Return the weight (K, D) of the maxima, from features of mean zero with one peak."""
    channels = split.channels(layout)
    weight = torch.empty(len(bias), channels, dtype=torch.float64, device=bias.device)
    for columns in _blocks(channels, split):
        features = _peaks(columns, split, layout)
        weight[:, columns] = ((split.head(features) - bias) / features.max()).T
    return weight


def _fold_norm(split: Split, verdict: Verdict) -> tuple[Tensor, Tensor]:
    with double_head(split):
        bias = _value_at_zero(split, verdict.layout)
        weight = _jacobian_at_zero(split, verdict.layout, torch.eye(len(bias)).to(bias))
    return weight * verdict.eps**0.5, bias


def _sees_only(split: Split, layout: Layout, prefix: int, pooling: Pooling) -> bool:
    features = _noise(4, split) * 3
    dims = position_dims(layout)
    cells = _after(features, dims, prefix)
    average, highest = cells.mean(dims, keepdim=True), cells.amax(dims, keepdim=True)
    pooled = {"avg": average, "max": highest, "avgmax": (average + highest) / 2}[pooling]
    logits = split.head(torch.cat([features, pooled.expand_as(features)]))
    return _close(logits[:4], logits[4:])


def _after(features: Tensor, dims: tuple[int, ...], prefix: int) -> Tensor:
    return features.narrow(dims[0], prefix, features.shape[dims[0]] - prefix) if prefix else features


def _sees_mean_and_maximum(split: Split, layout: Layout, prefix: int) -> bool:
    if prefix or not _is_affine(split, layout):
        return False
    weight, bias = _fold(split, layout)
    highest = _fold_maximum(split, layout, bias)
    features, dims = _noise(4, split), position_dims(layout)
    expected = features.mean(dims) @ (weight - highest).T + features.amax(dims) @ highest.T + bias
    return _close(split.head(features), expected)


def _is_affine(split: Split, layout: Layout) -> bool:
    # Several scales: an activation that saturates, or that is linear around zero, must not pass.
    a, b = (_rows(split, layout, seed) for seed in (1, 2))
    logits = split.head(at_positions(torch.cat([a, b, 0.3 * a + 0.7 * b]), split, layout))
    return _close(0.3 * logits[:4] + 0.7 * logits[4:8], logits[8:])


def _fit_norm(split: Split, layout: Layout) -> tuple[Statistic, float] | None:
    """Return statistic and eps for which the head is `J m / sqrt(statistic(m) / eps + 1) + c`, if there are any.

    J is its Jacobian at zero, where a norm with eps is linear.
    """
    # A few mixtures of the logits tell as much as all of them, in a fraction of the time.
    constant = _value_at_zero(split, layout)
    mixtures = _randn((min(MIXTURES, len(constant)), len(constant)), 7, split)
    jacobian = _jacobian_at_zero(split, layout, mixtures)
    rows = torch.cat([_rows(split, layout, seed) for seed in (4, 5, 6)])
    logits = (split.head(at_positions(rows, split, layout)) - constant) @ mixtures.T
    direct = rows @ jacobian.T
    shrunk = (direct.square().sum(1) / (logits * direct).sum(1)).square() - 1
    for statistic, values in (("variance", rows.var(1, unbiased=False)), ("mean_square", rows.square().mean(1))):
        # Digits beyond these are rounding; without them, every conversion of an architecture gives the same number.
        eps = float(f"{float((values / shrunk).median()):.12g}")
        if eps > 0 and _close(logits, direct / (values / eps + 1).sqrt()[:, None]):
            return statistic, eps  # type: ignore[return-value]
    return None


def _value_at_zero(split: Split, layout: Layout) -> Tensor:
    zero = torch.zeros(1, split.channels(layout), dtype=torch.float64, device=split.example.device)
    with torch.no_grad():
        value: Tensor = split.head(at_positions(zero, split, layout))[0].clone()
    return value


def _jacobian_at_zero(split: Split, layout: Layout, mixtures: Tensor) -> Tensor:
    """Return the Jacobian (M, D) of mixtures (M, K) of the head's logits, at features of zero."""
    jacobian = mixtures.new_zeros(len(mixtures), split.channels(layout))
    for block in _blocks(len(mixtures), split):
        with torch.enable_grad():
            rows = jacobian[block].clone().requires_grad_()
            logits = split.head(at_positions(rows, split, layout))
            if logits.requires_grad:
                (jacobian[block],) = torch.autograd.grad((logits * mixtures[block]).sum(), rows)
    return jacobian


def at_positions(rows: Tensor, split: Split, layout: Layout) -> Tensor:
    """Return features in the network's layout that hold `rows` (B, D) at every position."""
    positions = position_dims(layout)
    # The grid of the probe image, since a pooling with a fixed window takes no other.
    sizes = [split.shape[dim] if dim in positions else -1 for dim in range(len(split.shape))]
    for dim in positions:
        rows = rows.unsqueeze(dim)
    return rows.expand(sizes)


def _peaks(columns: Tensor, split: Split, layout: Layout) -> Tensor:
    """Return one feature map per channel of `columns`, in which that channel has one peak and the mean zero."""
    channels = split.channels(layout)
    positions = position_dims(layout)
    grid = torch.full([split.shape[dim] for dim in positions], -1.0, dtype=torch.float64, device=columns.device)
    grid.view(-1)[0] += grid.numel()
    rows = nn.functional.one_hot(columns, channels).double()
    features = rows.reshape(*rows.shape, *[1] * grid.ndim) * grid
    return features if channel_dim(layout) == 1 else features.movedim(1, -1)


def _rows(split: Split, layout: Layout, seed: int) -> Tensor:
    scales = torch.tensor([0.1, 1.0, 10.0, 100.0], dtype=torch.float64, device=split.example.device)
    return _randn((4, split.channels(layout)), seed, split) * scales[:, None]


def _noise(count: int, split: Split) -> Tensor:
    return _randn((count, *split.shape[1:]), 0, split)


def _randn(shape: tuple[int, ...], seed: int, split: Split) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(split.example.device)


def _weigh(values: Tensor) -> Tensor:
    weights = torch.randn(values.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (values * weights.to(values)).sum()


def _close(a: Tensor, b: Tensor) -> bool:
    scale = torch.maximum(a.abs().max(), b.abs().max())
    return bool(scale > 0) and bool((a - b).abs().max() <= TOLERANCE * scale)


@contextmanager
def double_head(split: Split, *, randomise: bool = False) -> Iterator[None]:
    """Run the head in float64; optionally give its zero-initialised weights values, to see through them."""
    modules = [split.network] if split.whole else [module for _, module in split.tail]
    tensors = {tensor for module in modules for tensor in (*module.parameters(), *module.buffers())}
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
            parameter.data.copy_(values.to(parameter.device))
