"""Take a network and its images in, or say what stands in the way and what to do about it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from softcam.errors import UnsupportedModelError
from softcam.nn.heads import EvidenceHead, SeveralEvidence
from softcam.nn.model import SoftCAM
from softcam.nn.replay import run_logits

ALIKE = 1e-6
"""Largest difference, relative to the largest weight, with which two folded weights count as the same."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside `torch.compile`'s or a data-parallel wrapper."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_model(model: nn.Module) -> None:
    """Refuse what is no network of eager code with floating-point weights, or has been converted already.

    Raises:
        TypeError: If `model` is no module.
        UnsupportedModelError: If it is one that cannot be converted.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected `model` to be a torch.nn.Module, but got {type(model).__name__}.")
    if any(isinstance(module, SoftCAM) for module in model.modules()):
        raise UnsupportedModelError("Expected a black box, but got a SoftCAM model. It has been converted already.")
    if isinstance(model, torch.jit.ScriptModule) or any(_is_scripted(module) for module in model.modules()):
        raise UnsupportedModelError(
            "Expected eager code, but got a TorchScript module. Convert the module it came from."
        )
    _check_weights(model)


def _is_scripted(module: nn.Module) -> bool:
    # Without weights, as a scripted normalisation is, it stays what it is.
    return isinstance(module, torch.jit.ScriptModule) and any(True for _ in module.parameters())


def _check_weights(model: nn.Module) -> None:
    tensors = [*model.parameters(), *model.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        raise UnsupportedModelError("Expected weights, but got lazy modules. Run the model on an image, then convert.")
    if any(tensor.is_meta for tensor in tensors):
        raise UnsupportedModelError("Expected weights, but got meta tensors. Load the weights, then convert.")
    whole = {parameter.dtype for parameter in model.parameters() if not parameter.is_floating_point()}
    if whole or any("quantized" in type(module).__module__ for module in model.modules()):
        got = ", ".join(sorted(map(str, whole))) or "quantised modules"
        raise UnsupportedModelError(
            f"Expected floating-point weights, but got {got}. Convert the float model, then quantise it."
        )


def copy_network(source: nn.Module) -> nn.Module:
    """Return a copy in eval mode, all of whose weights take gradients.

    Raises:
        UnsupportedModelError: If the network cannot be copied.
    """
    try:
        return copy.deepcopy(source).eval().requires_grad_()
    except (RuntimeError, TypeError) as error:
        raise UnsupportedModelError(
            f"Expected a model that can be copied, but it raised: {error}. Make computed weights plain ones first "
            "(`torch.nn.utils.remove_weight_norm`, `torch.nn.utils.prune.remove`), and take out locks and generators."
        ) from error


def check_images(images: Tensor, network: nn.Module) -> None:
    """Refuse images that are no filled batch, or have not the dimensions of the network's first convolution.

    Raises:
        TypeError: If `images` is no tensor.
        ValueError: If its shape does not fit.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"Expected `images` to be a torch.Tensor, but got {type(images).__name__}.")
    first = first_convolution(network)
    dims = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
    expected = next((count for kind, count in dims.items() if isinstance(first, kind)), images.ndim - 2)
    if images.ndim != expected + 2 or images.ndim < 3 or len(images) == 0:
        shape = {1: "(N, C, L)", 3: "(N, C, D, H, W)"}.get(expected, "(N, C, H, W)")
        raise ValueError(f"Expected `images` to be a filled batch {shape}, but got {tuple(images.shape)}.")


def first_convolution(network: nn.Module) -> nn.Conv1d | nn.Conv2d | nn.Conv3d | None:
    """Return the first convolution in the order in which a network's modules were registered, if it has one."""
    return next((m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)


def classify(network: nn.Module, images: Tensor, classifier: str | None) -> Tensor:
    """Return the logits (N, K) of images, without gradients.

    Args:
        network: The black box, in eval mode.
        images: (N, C, *size).
        classifier: Name of the module whose output is the logits; default: what the network returns.

    Raises:
        UnsupportedModelError: If the network fails on them, or if what it gives is no tensor of finite logits.
    """
    shape = tuple(images.shape)
    try:
        with torch.no_grad():
            logits = run_logits(network, images, classifier)
    except (RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UnsupportedModelError(
            f"Expected the model to classify images {shape}, but it raised: {error}. "
            "Pass `images=` as the model expects them."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedModelError(
            f"Expected the model to return one tensor of logits (N, K), but got {got}. Name the module whose output "
            "is the logits with `classifier=`, or wrap the model in a module that returns the logits alone."
        )
    if not logits.isfinite().all():
        raise UnsupportedModelError(
            f"Expected finite logits, but the model gives NaN or infinity for images {shape}. "
            "Look for NaN among its weights and in the images; in half precision, for overflow."
        )
    return logits


@contextmanager
def taking_one_image(example: Tensor) -> Iterator[None]:
    """Run the body, in which a network that has classified several images is run on one.

    Raises:
        UnsupportedModelError: If it fails on that one.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedModelError(
            f"Expected the model to take any number of images, but on a batch {tuple(example.shape)} it raised: "
            f"{error}. Take fixed batch sizes out of its code; of an exported program, convert the source."
        ) from error


def check_classifier(network: nn.Module, head: EvidenceHead | SeveralEvidence) -> None:
    """Refuse pooled features, normed or not, that only look like logits: the network ends before its classifier.

    Raises:
        UnsupportedModelError: If there is no classifier.
    """
    last = list(network.modules())[-1]
    without = getattr(network, "num_classes", None) == 0 or type(last) is nn.Identity
    if without and isinstance(head, EvidenceHead) and _keeps_channels(head.classifier.weight.detach().flatten(1)):
        raise UnsupportedModelError(
            "Expected a classifier, but the model returns its pooled features. "
            "Use `num_classes=` for a class evidence layer on them, and train it."
        )


def check_stage_classes(network: nn.Module, num_classes: int) -> None:
    """Refuse to take the width of a network that says it has no classifier for its number of classes.

    Raises:
        UnsupportedModelError: If the number of classes has to be given.
    """
    widths = {getattr(network, name, None) for name in ("num_features", "head_hidden_size")}
    if getattr(network, "num_classes", None) == 0 and num_classes in widths:
        raise UnsupportedModelError(
            "Expected a classifier, but the model returns its pooled features, which tell no number of classes. "
            "Pass `num_classes=` as well."
        )


def _keeps_channels(weight: Tensor) -> bool:
    """Return whether a matrix is that of a norm or of nothing: off the diagonal, a row holds one number, if any."""
    count = len(weight)
    if count < 2 or weight.shape[1] != count or not weight.diagonal().any():
        return False
    others = weight[~torch.eye(count, dtype=torch.bool, device=weight.device)].reshape(count, -1)
    return bool((others.amax(1) - others.amin(1)).max() <= ALIKE * weight.abs().max())
