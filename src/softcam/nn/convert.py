"""Turn a trained black box into a SoftCAM model: find pooling and classifier, copy the weights, measure the result.

What a head computes is decided by its behaviour in float64 on synthetic features, never by class names: on the real
features of a network, which vary little over positions, a nonlinear head can pass for an affine one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isinf
from numbers import Integral
from typing import Any, get_args

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.build import Built, HeadChoice, build, build_at, build_new, create_features
from softcam.nn.evidence import Evidence
from softcam.nn.features import map_stride as compute_stride
from softcam.nn.features import to_grid
from softcam.nn.intake import (
    check_classifier,
    check_images,
    check_model,
    check_stage_classes,
    classify,
    copy_network,
    first_convolution,
    taking_one_image,
    unwrap,
)
from softcam.nn.locality import theoretical_receptive_field
from softcam.nn.model import SoftCAM
from softcam.nn.pruning import Extractor, drop_unused
from softcam.nn.report import ConversionReport
from softcam.nn.resolution import Refinement, refine
from softcam.nn.split import Split, split_network
from softcam.nn.stages import Place, create_stage_features, find_stages

EXACT_TOLERANCE = 1e-4
"""Largest relative difference of logits on the probe images with which a copy still counts as exact, in float32.

Half precision gets two of its rounding steps.
"""

ONE_LOGIT = "one logit: its sigmoid is the probability of the class, a threshold decides"


@dataclass(frozen=True)
class _Probe:
    """The images on which a conversion is measured, and what the black box says of them."""

    images: Tensor
    logits: Tensor


@dataclass(frozen=True)
class _Request:
    """What was asked for."""

    num_classes: int | None
    exact: bool
    head: HeadChoice
    map_stride: int | None
    features: str | None
    classifier: str | None
    at: tuple[Place, ...] = ()
    layers: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that no conversion takes."""
        if self.head not in get_args(HeadChoice):
            raise ValueError(f"Expected `head` to be one of {', '.join(get_args(HeadChoice))}, but got {self.head!r}.")
        if not isinstance(self.num_classes, Integral | None):
            raise TypeError(f"Expected `num_classes` to be an integer, but got {type(self.num_classes).__name__}.")

    def arguments(self, kind: str) -> dict[str, object]:
        """Return what shapes the model, where it is not the default; `kind` is that of the layer that came of it."""
        # A head that is more than linear stays as `auto` would have it.
        default = self.head == "auto" or (self.head == "linear" and kind != "linear")
        shaping = {
            "head": None if default else self.head,
            "map_stride": self.map_stride,
            "features": self.features,
            "classifier": self.classifier,
            "at": list(self.at) or None,
            "layers": self.layers,
        }
        return {name: value for name, value in shaping.items() if value is not None}


@torch.inference_mode(mode=False)
def convert(  # noqa: PLR0913 - each argument is one thing that a user may want
    model: nn.Module,
    *,
    num_classes: int | None = None,
    images: Tensor | None = None,
    multi_label: bool = False,
    certify: bool = True,
    exact: bool = True,
    head: HeadChoice = "auto",
    map_stride: int | None = None,
    features: str | nn.Module | None = None,
    classifier: str | nn.Module | None = None,
    at: Place | nn.Module | Sequence[Place | nn.Module] | None = None,
    layers: int | None = None,
) -> SoftCAM:
    """Return a SoftCAM model with the trunk, and where mathematics allows the logits, of a black-box classifier.

    The source stays as it is. A head that pools (mean, maximum or both; a class evidence layer per map where there are
    several), norms the pooled vector or not, and is affine (dropout and batch norm included) is folded into 1x1
    convolutions, exactly; so is CLIP's attention pooling. Everything after the pooling, and branches that only served
    training, is left behind.

    Args:
        model: A trained classifier, images (N, C, H, W) to logits (N, K), from timm, torchvision or anywhere else;
            signals (N, C, L) and volumes (N, C, D, H, W) as well.
        num_classes: If given, a new class evidence layer for so many classes, to be trained.
        images: Probe images (N, C, H, W) as the model expects them, on which the result is measured; default: two
            images of noise at the model's default size.
        multi_label: Whether classes are independent (sigmoid) rather than exclusive (softmax); an only class always is.
        certify: Whether to compare the new logits with the old ones. Without it, nothing vouches for the copy.
        exact: Whether to refuse a head that cannot be exact (flattened grids, hidden layers after the pooling, class
            tokens). If false, its layers are applied at every cell; the logits drift, and the model has to be
            fine-tuned.
        head: `auto`; `linear`, a single 1x1 convolution; `pointwise`, the head's layers at every cell;
            `fully_convolutional`, a head on a flattened grid as one wide convolution, exact at the native size.
        map_stride: Input pixels per cell, 16 or 8, for finer maps by dilation instead of stride, where the features
            of the original survive. Logits change a little; the report says how much.
        features: Module, or its dotted name, whose output is the feature map; default: found.
        classifier: Module, or its dotted name, whose output is the logits; default: what the model returns.
        at: Place of the class evidence layer: a stride in pixels, meaning the deepest features of that stride, or a
            module or its dotted name; several places give one layer each, whose logits add up. Later layers are
            dropped, and the new class evidence layer has to be trained.
        layers: Number of 1x1 layers of a new class evidence layer; default: 1 at the place of the pooling, 2 (with
            batch norm and ReLU between them) at an earlier place.

    Returns:
        The model, in the source's train or eval mode, on its device; `model.conversion` says what was done.

    Raises:
        UnsupportedModelError: If the model has no feature map before its classifier, or if its head cannot be exact.

    Reference:
        Djoumessi & Berens, MIDL 2026; without training it equals CAM (Zhou et al., CVPR 2016) with the bias spread
        over the cells.
    """
    source = unwrap(model)
    check_model(source)
    named = (_name_of(source, features, "features"), _name_of(source, classifier, "classifier"))
    request = _Request(num_classes, exact, head, map_stride, *named, _read_places(source, at), layers)
    return _convert(source, request, images, multi_label=multi_label, certify=certify)


@torch.inference_mode(mode=False)
def rebuild(
    model: nn.Module, report: ConversionReport, *, num_classes: int, images: Tensor | None, multi_label: bool
) -> SoftCAM:
    """Return a model of the form that a conversion gave, into which its weights can be put.

    What only measures the result, such as the receptive field, is left out: `report` has it.

    Args:
        model: The black box that was converted, with any weights.
        report: What was done to it.
        num_classes: K of the new class evidence layer.
        images: As for `convert`, and so are the errors.
        multi_label: As for `convert`.
    """
    source = unwrap(model)
    check_model(source)
    given: dict[str, Any] = {"head": "auto", "map_stride": None, **report.arguments}
    given |= {part: _name_of(source, given.get(part), part) for part in ("features", "classifier")}
    request = _Request(num_classes, exact=True, **{**given, "at": _read_places(source, given.get("at"))})
    return _convert(source, request, images, multi_label=multi_label, certify=False, measured=False)


def _convert(
    source: nn.Module,
    request: _Request,
    images: Tensor | None,
    *,
    multi_label: bool,
    certify: bool,
    measured: bool = True,
) -> SoftCAM:
    network = copy_network(source)
    probe = _make_probe(network, images, request, certify=certify)
    original = probe.logits
    refinement = None
    if request.map_stride is not None:
        refinement = _refine(network, probe.images, request, certify=certify)
        probe = replace(probe, logits=classify(network, probe.images, request.classifier))
    extractor, built, tail = _place_layer(network, probe, request)
    receptive_field, grid, dropped = drop_unused(extractor, tail, probe.images[:1], measured=measured)
    report = _make_report(built, request, probe, built.head.cells(grid), receptive_field)
    report = replace(report, notes=report.notes + dropped + (refinement.notes if refinement else ()))
    converted = SoftCAM(extractor, built.head.to(probe.images), report, multi_label=multi_label)
    if certify:
        _measure(converted, built, probe, original)
    if certify and request.at:
        bound = _find_bound(converted, probe.images)
        converted.conversion = replace(converted.conversion, theoretical_receptive_field=bound)
    return _restore_flags(converted, source)


def _place_layer(network: nn.Module, probe: _Probe, request: _Request) -> tuple[Extractor, Built, list[str]]:
    """Return the features, the class evidence layer on them, and the names of the modules that only the head calls."""
    if request.at:
        with taking_one_image(probe.images[:1]):
            stages = find_stages(network, probe.images[:1], request.at)
        classes = probe.logits.shape[1] if request.num_classes is None else request.num_classes
        if request.num_classes is None:
            check_stage_classes(network, classes)
        return create_stage_features(network, stages), build_at(stages, num_classes=classes, layers=request.layers), []
    split, built = _split_and_build(network, probe.images[:1], request)
    return create_features(split, built), built, [name for name, _ in split.tail]


def _split_and_build(network: nn.Module, example: Tensor, request: _Request) -> tuple[Split, Built]:
    with taking_one_image(example):
        split = split_network(network, example, features=request.features, classifier=request.classifier)
    if request.num_classes is not None:
        return split, build_new(split, head=request.head, num_classes=request.num_classes, layers=request.layers)
    if request.layers is not None:
        raise ValueError("Expected `layers` together with `num_classes=` or `at=`, whose class evidence layer is new.")
    built = build(split, head=request.head, exact=request.exact)
    check_classifier(network, built.head)
    return split, built


def _refine(network: nn.Module, images: Tensor, request: _Request, *, certify: bool) -> Refinement:
    split, built = _split_and_build(network, images[:1], replace(request, exact=False))

    def run(_network: nn.Module, batch: Tensor) -> Tensor:
        return to_grid(split.extract(batch), built.layout, batch.shape[2:], prefix=built.prefix)

    if request.map_stride is None:
        raise ValueError("Expected `map_stride` to be given.")
    return refine(network, images[:1], run, stride=request.map_stride, verify=certify)


def _read_places(model: nn.Module, at: Place | nn.Module | Sequence[Place | nn.Module] | None) -> tuple[Place, ...]:
    if at is None:
        return ()
    places = [at] if isinstance(at, int | str | nn.Module) else list(at)
    if not places or any(isinstance(place, int) and place < 1 for place in places):
        raise ValueError(f"Expected `at` to be strides >= 1 or modules, but got {at!r}.")
    return tuple(place if isinstance(place, int) else str(_name_of(model, place, "at")) for place in places)


def _name_of(model: nn.Module, part: str | nn.Module | None, argument: str) -> str | None:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if part is None:
        return None
    if isinstance(part, str) and part in modules and part:
        return part
    names = [name for name, module in modules.items() if module is part and name]
    if names:
        return names[0]
    known = ", ".join(name for name in list(modules)[1:] if name.count(".") <= 1)
    shown = repr(part) if isinstance(part, str) else type(part).__name__
    raise ValueError(f"Expected `{argument}` to be a module of the model, but got {shown}. Choose among: {known}.")


def _make_probe(network: nn.Module, images: Tensor | None, request: _Request, *, certify: bool) -> _Probe:
    reference = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    if images is not None:
        check_images(images, network)
        images = images.to(reference)
        return _Probe(images, classify(network, images, request.classifier))
    shape = input_shape(network)
    recorded = tuple((_record_of(network).get("input_size") or shape)[:1]) + shape[1:]
    # A stem that folds blocks of pixels into channels hides how many the images have.
    for candidate in dict.fromkeys([shape, recorded]):
        noise = torch.randn(2 if certify else 1, *candidate, generator=torch.Generator().manual_seed(0)).to(reference)
        try:
            return _Probe(noise, classify(network, noise, request.classifier))
        except UnsupportedModelError:
            if candidate == recorded:
                raise
    raise AssertionError


def input_shape(network: nn.Module) -> tuple[int, ...]:
    """Return the (C, H, W) that a network expects by default: timm's record, else its first layer's, else 3x224x224.

    Raises:
        UnsupportedModelError: If the first layer takes signals or volumes, which have no usual size.
    """
    record = _record_of(network)
    size = tuple(record.get("input_size") or (3, 224, 224))
    patches = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if isinstance(patches, tuple) and len(patches) == 2:
        size = (size[0], *patches)
    first = first_convolution(network)
    if isinstance(first, nn.Conv1d | nn.Conv3d):
        kind = "signals (N, C, L)" if isinstance(first, nn.Conv1d) else "volumes (N, C, D, H, W)"
        raise UnsupportedModelError(f"Expected `images=` for a network of {kind}, but got none. Pass one or two.")
    channels = first.in_channels if first is not None else size[0]
    return channels, int(size[1]), int(size[2])


def _record_of(network: nn.Module) -> Mapping[str, Any]:
    record: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    return record


def _make_report(
    built: Built, request: _Request, probe: _Probe, grid: tuple[int, ...], receptive_field: tuple[int, ...]
) -> ConversionReport:
    size = tuple(probe.images.shape[2:])
    return ConversionReport(
        head=built.head.kind,
        exact=built.fidelity == "exact" and request.map_stride is None,
        error=None,
        channels=built.head.channels,
        num_classes=built.head.num_classes,
        layout=built.layout,
        input_size=size,
        grid=grid,
        map_stride=compute_stride(size, grid),
        receptive_field=receptive_field,
        places=built.places,
        dropout=built.head.dropout,
        notes=built.notes + ((ONE_LOGIT,) if built.head.num_classes == 1 else ()),
        arguments=request.arguments(built.head.kind),
    )


def _measure(converted: SoftCAM, built: Built, probe: _Probe, original: Tensor) -> None:
    """Put the measured error or drift into the report.

    Raises:
        UnsupportedModelError: If a copy that should be exact is not.
    """
    converted.eval()
    with torch.no_grad():
        evidence = converted.evidence(probe.images)
    evidence.check(_tolerance(probe.logits.dtype))
    report = converted.conversion
    if built.fidelity == "exact":
        # Finer maps are exact towards the network that has been made finer.
        report = replace(report, error=_check_error(evidence, probe.logits))
    if built.fidelity == "copy" or report.arguments.get("map_stride"):
        report = replace(report, drift=_difference(evidence, original))
    converted.conversion = report


def _find_bound(converted: SoftCAM, images: Tensor) -> tuple[int | None, ...]:
    try:
        found = theoretical_receptive_field(converted, images)
    except UnsupportedModelError:
        return ()
    return tuple(None if isinf(pixels) else int(pixels) for pixels in found)


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


def _check_error(evidence: Evidence, old: Tensor) -> float:
    error = _difference(evidence, old)
    if not error <= _tolerance(old.dtype):
        raise UnsupportedModelError(
            f"Expected the converted model to give the same logits, but they differ by {error:.2g} of their size. "
            "The network does more with its features than pool and classify them. Name the module after which it does "
            "not with `features=`, or use `num_classes=` for a new class evidence layer."
        )
    return error


def _difference(evidence: Evidence, old: Tensor) -> float:
    # Both ways to the logits count: pooling first, as `forward` goes, and the mean of the maps.
    means = evidence.maps.double().flatten(2).mean(-1)
    difference = torch.maximum((evidence.logits - old).abs().double(), (means - old).abs())
    return float(difference.max() / old.abs().max().clamp_min(torch.finfo(old.dtype).tiny))
