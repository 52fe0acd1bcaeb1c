"""Integrated Gradients, Guided Backprop and SmoothGrad through captum, as maps at the image's resolution."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softcam.attribution.seeds import create_generator
from softcam.errors import UnsupportedModelError
from softcam.libraries import load_library

_BATCH = 32


def integrated_gradients(model: nn.Module, images: Tensor, target: Tensor, *, steps: int = 50) -> Tensor:
    """Return Integrated Gradients (N, H, W): the logit's gradients along a straight line from a baseline.

    `map = sum_c (x_c - x0_c) * mean_a(d logit / d x_c at x0 + a (x - x0))` by Gauss-Legendre quadrature. The baseline
    `x0` is zero in the model's normalised space: the mean colour of the data the normalisation was made for, not
    black. Channels are summed with their sign, so that a map adds up to `logit(x) - logit(x0)`.

    Args:
        model: Any differentiable module.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        steps: Points of the quadrature; at most 32 images x points are computed at once.

    Returns:
        Maps (N, H, W), signed, float32.

    Raises:
        MissingExtraError: If captum is not installed.
        ValueError: If `steps` is below one.

    Reference:
        Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017, equation 1.
    """
    if steps < 1:
        raise ValueError(f"Expected `steps` to be at least 1, but got {steps}.")
    captum = load_library("captum.attr", extra="peers")
    method = captum.IntegratedGradients(model)
    parts = [
        method.attribute(inputs, target=classes, n_steps=steps, internal_batch_size=max(_BATCH, len(inputs)))
        for inputs, classes in zip(torch.split(_leaf(images), _BATCH), torch.split(target, _BATCH), strict=True)
    ]
    return torch.cat(parts).sum(dim=1).detach().float()


def guided_backprop(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Return Guided Backprop (N, H, W): the logit's gradient with negative parts cut at every ReLU.

    captum applies the rule to `nn.ReLU` modules, in place or not. Here it is applied to `nn.ReLU6` as well (the same
    cut of negative gradients; the saturation above 6 is already in the ordinary gradient). Other activations (SiLU,
    GELU, sigmoid gates) and ReLUs called as functions keep their ordinary gradient: the rule is not defined for the
    former and cannot be attached to the latter. Channels are summed with their sign.

    Args:
        model: Any differentiable module.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).

    Returns:
        Maps (N, H, W), signed, float32.

    Raises:
        MissingExtraError: If captum is not installed.
        UnsupportedModelError: If the model has neither `nn.ReLU` nor `nn.ReLU6`: the result would be a plain gradient
            under another name.

    Reference:
        Springenberg et al., "Striving for simplicity", ICLR 2015 workshop, section 3.4.
    """
    if not any(isinstance(module, nn.ReLU | nn.ReLU6) for module in model.modules()):
        raise UnsupportedModelError(
            f"Expected `model` to have nn.ReLU or nn.ReLU6 modules, but found none in {type(model).__name__}. "
            "Guided Backprop is not defined for other activations; use integrated_gradients."
        )
    captum = load_library("captum.attr", extra="peers")
    with warnings.catch_warnings(), _guided_relu6(model):
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        gradient: Tensor = captum.GuidedBackprop(model).attribute(_leaf(images), target=target)
    return gradient.sum(dim=1).detach().float()


def smooth_grad(model: nn.Module, images: Tensor, target: Tensor, *, samples: int = 50, noise: float = 0.15) -> Tensor:
    """Return SmoothGrad (N, H, W): the size of the logit's gradient, averaged over noisy copies of the image.

    `map = sum_c |mean_s(d logit / d x_c at x + e_s)|`, with `e_s` normal, of the given share of the image's own range.
    The gradients are averaged with their sign, then the sign is dropped, as the paper does for colour images: it says
    which way to change a pixel, not what the pixel speaks for. Each image seeds its noise by a checksum of its values
    (captum's NoiseTunnel draws it from torch's global generator), so it has the same map in any batch.

    Args:
        model: Any differentiable module.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        samples: Noisy copies of an image, at least 1; at most 32 are computed at once.
        noise: Standard deviation of the noise as a share of the image's range, above 0.

    Returns:
        Maps (N, H, W), not negative, float32.

    Raises:
        MissingExtraError: If captum is not installed.
        ValueError: If `samples` or `noise` is out of range.

    Reference:
        Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017, section 2.
    """
    if samples < 1:
        raise ValueError(f"Expected `samples` to be at least 1, but got {samples}.")
    if noise <= 0:
        raise ValueError(f"Expected `noise` to be above 0, but got {noise}.")
    saliency = load_library("captum.attr", extra="peers").Saliency(model)
    maps = []
    for image, index in zip(images.detach(), target.tolist(), strict=True):
        parts = torch.split(_add_noise(image, samples, noise), _BATCH)
        total = sum(saliency.attribute(_leaf(part), target=index, abs=False).sum(dim=0) for part in parts)
        maps.append((total / samples).abs().sum(dim=0))
    return torch.stack(maps).float()


def _add_noise(image: Tensor, samples: int, noise: float) -> Tensor:
    drawn = torch.randn((samples, *image.shape), generator=create_generator(image))
    return image + noise * (image.max() - image.min()) * drawn.to(image)


class _PositiveGradient(torch.autograd.Function):
    """The identity, whose gradient loses its negative part."""

    @staticmethod
    def forward(_context: Any, inputs: Tensor) -> Tensor:
        # A copy, because the activation that follows may work in place.
        return inputs.clone()

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp_min(0.0)


@contextmanager
def _guided_relu6(model: nn.Module) -> Iterator[None]:
    # Placed before the module, so the cut meets the gradient that has passed the activation's own gate.
    def cut(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_PositiveGradient.apply(inputs[0]), *inputs[1:])

    handles = [module.register_forward_pre_hook(cut) for module in model.modules() if isinstance(module, nn.ReLU6)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leaf(images: Tensor) -> Tensor:
    # A copy of its own: captum switches requires_grad on its inputs and leaves it on after an exception.
    return images.detach().clone().requires_grad_()
