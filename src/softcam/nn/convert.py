"""Turn a trained black box into a SoftCAM model: find pooling and classifier, copy the weights, measure the result.

What a head computes is decided by its behaviour in float64 on synthetic features, never by class names: on the real
features of a network, which vary little over positions, a nonlinear head can pass for an affine one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.evidence import Evidence
from softcam.nn.features import Features, Layout
from softcam.nn.heads import LinearEvidence
from softcam.nn.model import SoftCAM
from softcam.nn.modes import is_batch_norm
from softcam.nn.probe import fold_affine, judge_head
from softcam.nn.report import ConversionReport
from softcam.nn.split import Split, drop_unused, split_network

EXACT_TOLERANCE = 1e-4
"""Largest relative difference of logits on the probe images with which a copy still counts as exact, in float32.

Half precision gets two of its rounding steps.
"""


@dataclass(frozen=True)
class _Probe:
    """The images on which a conversion is measured, and what the black box says of them."""

    images: Tensor
    logits: Tensor


@torch.inference_mode(mode=False)
def convert(
    model: nn.Module,
    *,
    num_classes: int | None = None,
    images: Tensor | None = None,
    multi_label: bool = False,
    certify: bool = True,
) -> SoftCAM:
    """Return a SoftCAM model with the trunk, and where mathematics allows the logits, of a black-box classifier.

    The source stays as it is. A head of the form mean -> affine (dropout and batch norm included) is folded into one
    1x1 convolution, exactly. Everything after the pooling, and branches that only served training, is left behind.

    Args:
        model: A trained classifier, images (N, C, H, W) to logits (N, K), from timm, torchvision or anywhere else.
        num_classes: If given, a new class evidence layer for so many classes, to be trained.
        images: Probe images (N, C, H, W) as the model expects them, on which the result is measured; default: two
            images of noise at the model's default size.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax).
        certify: Whether to compare the new logits with the old ones. Without it, nothing vouches for the copy.

    Returns:
        The model, in the source's train or eval mode, on its device; `model.conversion` says what was done.

    Raises:
        UnsupportedModelError: If the model has no pooled feature map, or if its head cannot be exact.

    Reference:
        Djoumessi & Berens, MIDL 2026; without training it equals CAM (Zhou et al., CVPR 2016) with the bias spread
        over the cells.
    """
    _check_model(model)
    network = copy.deepcopy(model).eval().requires_grad_()
    probe = _make_probe(network, images, certify=certify)
    split = split_network(network, probe.images[:1])
    layout, head, notes = _make_head(split, num_classes)
    features = split.features(layout)
    receptive_field, grid, dropped = drop_unused(features, split.tail, probe.images[:1])
    head = head.to(probe.images)
    report = _make_report(head, layout, probe, grid, receptive_field)
    report = replace(report, exact=num_classes is None, notes=notes + dropped)
    return _finish(SoftCAM(features, head, report, multi_label=multi_label), model, probe if certify else None)


def _check_model(model: nn.Module) -> None:
    if isinstance(model, SoftCAM):
        raise UnsupportedModelError("Expected a black box, but got a SoftCAM model. It has been converted already.")
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected `model` to be a torch.nn.Module, but got {type(model).__name__}.")
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            "Expected eager code, but got a TorchScript module. Convert the module it came from."
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UnsupportedModelError("Expected weights, but got meta tensors. Load the weights, then convert.")


def _make_probe(network: nn.Module, images: Tensor | None, *, certify: bool) -> _Probe:
    reference = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    if images is None:
        noise = torch.Generator().manual_seed(0)
        images = torch.randn(2 if certify else 1, *input_shape(network), generator=noise)
    elif images.ndim != 4 or len(images) == 0:
        raise ValueError(f"Expected `images` to be a filled batch (N, C, H, W), but got {tuple(images.shape)}.")
    images = images.to(reference)
    logits = _run(network, images)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UnsupportedModelError(
            f"Expected the model to return one tensor of logits (N, K), but got {got}. "
            "Wrap it in a module that returns the logits alone."
        )
    return _Probe(images, logits)


def _run(network: nn.Module, images: Tensor) -> object:
    try:
        with torch.no_grad():
            return network(images)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedModelError(
            f"Expected the model to classify images {tuple(images.shape)}, but it raised: {error}. "
            "Pass `images=` as the model expects them."
        ) from error


def input_shape(network: nn.Module) -> tuple[int, int, int]:
    """Return the (C, H, W) that a network expects by default: timm's record, else its first layer's, else 3x224x224."""
    record = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    size = tuple(record.get("input_size") or (3, 224, 224))
    patches = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if isinstance(patches, tuple) and len(patches) == 2:
        size = (size[0], *patches)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else size[0]
    return channels, int(size[1]), int(size[2])


def _make_head(split: Split, num_classes: int | None) -> tuple[Layout, LinearEvidence, tuple[str, ...]]:
    verdict = judge_head(split)
    if num_classes is not None:
        layout = verdict.layout or split.likely_layout()
        head = LinearEvidence(split.channels(layout), num_classes, dropout=split.dropout)
        return layout, head, ("the class evidence layer is new: train it before use",)
    if verdict.layout is None or not verdict.affine:
        raise UnsupportedModelError(
            f"Expected the head to be mean -> affine, but {verdict.found} Its maps cannot average to the same logits. "
            "Use `num_classes=` for a new class evidence layer on the same trunk, and train it."
        )
    weight, bias = fold_affine(split, verdict.layout)
    frozen = any(is_batch_norm(module) for _, module in split.tail)
    notes = ("batch norm in the head is folded in its eval form and no longer adapts",) if frozen else ()
    return verdict.layout, LinearEvidence.from_affine(weight, bias, dropout=split.dropout), notes


def _make_report(
    head: LinearEvidence, layout: Layout, probe: _Probe, grid: tuple[int, int], receptive_field: tuple[int, int]
) -> ConversionReport:
    height, width = probe.images.shape[-2:]
    return ConversionReport(
        head=head.kind,
        exact=True,
        error=None,
        channels=head.channels,
        num_classes=head.num_classes,
        layout=layout,
        input_size=(height, width),
        grid=grid,
        map_stride=(round(height / grid[0]), round(width / grid[1])),
        receptive_field=receptive_field,
        dropout=head.dropout,
    )


def _finish(converted: SoftCAM, source: nn.Module, probe: _Probe | None) -> SoftCAM:
    if probe is not None:
        converted.eval()
        with torch.no_grad():
            evidence = converted.evidence(probe.images)
        evidence.check(_tolerance(probe.logits.dtype))
        if converted.conversion.exact:
            converted.conversion = replace(converted.conversion, error=_measure(evidence, probe.logits))
    return _restore_flags(converted, source)


def _restore_flags(converted: SoftCAM, source: nn.Module) -> SoftCAM:
    converted.train(source.training)
    modes = {name: module.training for name, module in source.named_modules()}
    for name, module in converted.features.network.named_modules():
        module.training = modes[name]
    flags = {name: parameter.requires_grad for name, parameter in source.named_parameters()}
    for name, parameter in converted.features.network.named_parameters():
        # What the features cannot reach was frozen on the way and stays so.
        parameter.requires_grad_(parameter.requires_grad and flags[name])
        parameter.grad = None
    return converted


def _tolerance(dtype: torch.dtype) -> float:
    return max(EXACT_TOLERANCE, 2 * torch.finfo(dtype).eps)


def _measure(evidence: Evidence, old: Tensor) -> float:
    # Both ways to the logits count: pooling first, as `forward` goes, and the mean of the maps.
    means = evidence.maps.double().mean((-2, -1))
    difference = torch.maximum((evidence.logits - old).abs().double(), (means - old).abs())
    error = float(difference.max() / old.abs().max().clamp_min(torch.finfo(old.dtype).tiny))
    if not error <= _tolerance(old.dtype):
        raise UnsupportedModelError(
            f"Expected the converted model to give the same logits, but they differ by {error:.2g} of their size. "
            "The network does more with its features than pool and classify them."
        )
    return error


__all__ = ["Features", "convert", "input_shape"]
