"""DeepLIFT through captum, refused where it would be something else under that name."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from softcam.attribution.state import hooked
from softcam.errors import UnsupportedModelError
from softcam.libraries import load_library

_ELEMENTWISE = (nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)
_GAP = 1e-3
"""Largest share of its absolute sum by which a map may miss the logit difference; rounding makes about 1e-6."""


def deep_lift(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Return DeepLIFT (N, H, W): the logit's difference from a baseline, shared out by the rescale rule.

    The baseline is zero in the model's normalised space, the mean colour, as in `integrated_gradients`. Channels are
    summed with their sign, so that a map adds up to `logit(x) - logit(0)`. captum applies the rule to modules; here to
    ReLU6, SiLU, GELU and Hardswish as well. It cannot be attached to activations that are called as functions, to
    products of features (squeeze and excitation) or to norms of the features themselves (layer normalisation), and
    captum cannot tell two calls of one module apart. Such models are refused; the former are found by the sum, which
    the rule guarantees and an ordinary gradient misses.

    Args:
        model: A module whose activations are modules, each called once.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).

    Returns:
        Maps (N, H, W), signed, in logit units, float32.

    Raises:
        MissingExtraError: If captum is not installed.
        UnsupportedModelError: If a nonlinear module is called twice, or if a map does not add up to the difference.

    Reference:
        Shrikumar et al., "Learning important features through propagating activation differences", ICML 2017, section
        3.5.1 and equation 1.
    """
    method = load_library("captum.attr", extra="peers").DeepLift(model)
    rules = load_library("captum.attr._core.deep_lift", extra="peers")
    with warnings.catch_warnings(), _extended(rules.SUPPORTED_NON_LINEAR, rules.nonlinear), _attributes_kept(model):
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        _check_called_once(model, images, tuple(rules.SUPPORTED_NON_LINEAR))
        shares, gaps = method.attribute(
            images.detach().clone().requires_grad_(), target=target, return_convergence_delta=True
        )
    _check_sum(model, shares.detach(), gaps.detach())
    maps: Tensor = shares.sum(dim=1).detach().float()
    return maps


def _check_called_once(model: nn.Module, images: Tensor, kinds: tuple[type[nn.Module], ...]) -> None:
    calls: Counter[str] = Counter()
    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if type(module) in kinds:
                stack.enter_context(hooked(module, partial(_count, calls, name)))
        model(images[:1])
    repeated = sorted(name for name, count in calls.items() if count > 1)
    if repeated:
        raise UnsupportedModelError(
            f"Expected each nonlinear module of `model` to be called once, but {repeated[0]!r} is called "
            f"{calls[repeated[0]]} times. Give every call a module of its own, or use integrated_gradients."
        )


def _count(calls: Counter[str], name: str, *_: object) -> None:
    calls[name] += 1


def _check_sum(model: nn.Module, shares: Tensor, gaps: Tensor) -> None:
    missed = (gaps.abs() / shares.abs().flatten(1).sum(dim=1).clamp_min(torch.finfo(shares.dtype).tiny)).max().item()
    if missed > _GAP:
        raise UnsupportedModelError(
            f"Expected shares that add up to the difference of logits, but in {type(model).__name__} the sum is off by "
            f"{missed:.2g} of its parts. Call activations as modules (nn.ReLU, not torch.relu), or use "
            "integrated_gradients: squeeze and excitation and layer normalisation have no rule."
        )


@contextmanager
def _extended(rules: dict[type[nn.Module], Any], rule: Any) -> Iterator[None]:
    added = [kind for kind in _ELEMENTWISE if kind not in rules]
    rules.update(dict.fromkeys(added, rule))
    try:
        yield
    finally:
        for kind in added:
            del rules[kind]


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    # captum notes inputs and outputs on the modules and leaves them there if the backward pass fails.
    kept = [(module, set(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, names in kept:
            for name in set(vars(module)) - names:
                delattr(module, name)
