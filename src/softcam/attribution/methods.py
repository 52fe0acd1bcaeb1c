"""The registry of explanation methods and the one way to call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch
from torch import Tensor, nn

from softcam.attribution.cams import (
    eigen_cam,
    finer_cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    refine_cam,
    xgrad_cam,
)
from softcam.attribution.deep_lift import deep_lift
from softcam.attribution.evidence import evidence_map, evidence_margin
from softcam.attribution.floors import center_gaussian, edges, random_map
from softcam.attribution.gradients import guided_backprop, integrated_gradients, smooth_grad
from softcam.attribution.perturbations import ablation_cam, occlusion, rise, score_cam
from softcam.attribution.state import borrowed, checked_output
from softcam.errors import RunError

Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Method:
    """An explanation method and what one should know before comparing it.

    Args:
        name: The key in `METHODS`.
        title: The name as a figure or table shows it.
        run: Maps (model, images (N, C, H, W), target (N,)) to maps (N, h, w); takes `layer=` if `at_layer`.
        cost: `forward` (at most one forward pass), `gradient` (a few forward and backward), `many` (dozens to
            thousands of them).
        needs_softcam: Whether the model must be a SoftCAM.
        reference: Where the method was published.
        notes: What limits the comparison, in one or two sentences.
        at_layer: Whether the method looks at one layer, which can be chosen.
    """

    name: str
    title: str
    run: Run
    cost: Literal["forward", "gradient", "many"]
    needs_softcam: bool
    reference: str
    notes: str = ""
    at_layer: bool = False


_RAW_CAM = "By the grad-cam library at the last spatial layer, without its scaling to [0, 1] and its resizing."

_ALL = (
    Method(
        "evidence", "SoftCAM evidence", evidence_map, "forward", needs_softcam=True,
        reference="Djoumessi & Berens, MIDL 2026",
        notes="The map of the target class. It is what the logit was computed from; its mean is the logit.",
    ),
    Method(
        "evidence_margin", "SoftCAM margin", evidence_margin, "forward", needs_softcam=True,
        reference="Djoumessi & Berens, MIDL 2026",
        notes="Target class minus its strongest rival. Its mean is the log-odds of the two.",
    ),
    Method(
        "grad_cam", "Grad-CAM", grad_cam, "gradient", needs_softcam=False,
        reference="Selvaraju et al., ICCV 2017",
        notes=_RAW_CAM,
        at_layer=True,
    ),
    Method(
        "layer_cam", "LayerCAM", layer_cam, "gradient", needs_softcam=False,
        reference="Jiang et al., IEEE TIP 2021",
        notes=_RAW_CAM,
        at_layer=True,
    ),
    Method(
        "grad_cam_plus_plus", "Grad-CAM++", grad_cam_plus_plus, "gradient", needs_softcam=False,
        reference="Chattopadhay et al., WACV 2018",
        notes=_RAW_CAM,
        at_layer=True,
    ),
    Method(
        "hires_cam", "HiResCAM", hires_cam, "gradient", needs_softcam=False,
        reference="Draelos & Carin, 2020",
        notes=f"{_RAW_CAM} With "
        "mean pooling and a linear classifier right after that layer it is CAM without the bias.",
        at_layer=True,
    ),
    Method(
        "xgrad_cam", "XGrad-CAM", xgrad_cam, "gradient", needs_softcam=False,
        reference="Fu et al., BMVC 2020",
        notes=f"{_RAW_CAM} Its "
        "weights are divided by each channel's sum, which means little where features have both signs.",
        at_layer=True,
    ),
    Method(
        "finer_cam", "Finer-CAM", finer_cam, "gradient", needs_softcam=False,
        reference="Zhang et al., CVPR 2025",
        notes="Grad-CAM by the grad-cam library, of the logit less those of the three nearest classes (of two: the "
        "rival), at strength 1. The library's objective turns its sign on very certain predictions; this one does not.",
        at_layer=True,
    ),
    Method(
        "refine_cam", "RefineCAM", refine_cam, "gradient", needs_softcam=False,
        reference="Domeniconi et al., 2026",
        notes="Product of the Grad-CAM++ maps (grad-cam library) of the last three stages, each resized to the image "
        "and scaled to [0, 1]: values without a unit. Which stages to take is chosen here; the library leaves it open.",
    ),
    Method(
        "eigen_cam", "Eigen-CAM", eigen_cam, "forward", needs_softcam=False,
        reference="Muhammad & Yeasin, IJCNN 2020",
        notes="Decomposition by the grad-cam library at the last spatial layer, sign by the rule of Seg-Eigen-CAM. "
        "Blind to the target: it says what is salient to the network, not what speaks for a class.",
        at_layer=True,
    ),
    Method(
        "score_cam", "Score-CAM", score_cam, "many", needs_softcam=False,
        reference="Wang et al., CVPR 2020 workshops",
        notes="Own implementation, equal to the grad-cam library's before its scaling, in bounded memory. One forward "
        "pass per channel of the last spatial layer; weights are a softmax over logits, often near one-hot or uniform.",
        at_layer=True,
    ),
    Method(
        "ablation_cam", "Ablation-CAM", ablation_cam, "many", needs_softcam=False,
        reference="Desai & Ramaswamy, WACV 2020",
        notes="Own implementation: channels of the last spatial layer set to zero, losses in logits rather than as a "
        "share of the logit, whose sign would turn the map. One forward pass per channel.",
        at_layer=True,
    ),
    Method(
        "integrated_gradients", "Integrated Gradients", integrated_gradients, "many", needs_softcam=False,
        reference="Sundararajan et al., ICML 2017",
        notes="By captum: 50 Gauss-Legendre steps from zero in normalised space, signed channel sum.",
    ),
    Method(
        "guided_backprop", "Guided Backprop", guided_backprop, "gradient", needs_softcam=False,
        reference="Springenberg et al., ICLR 2015",
        notes="By captum, whose rule covers nn.ReLU; extended here to nn.ReLU6. Other activations and ReLUs called as "
        "functions keep their ordinary gradient; a model without ReLU modules is refused. Signed channel sum.",
    ),
    Method(
        "smooth_grad", "SmoothGrad", smooth_grad, "many", needs_softcam=False,
        reference="Smilkov et al., 2017",
        notes="Gradients by captum, 50 samples with noise of 15 % of the image's range, seeded by the image. Absolute "
        "values: it says where the logit is sensitive, not which way.",
    ),
    Method(
        "deep_lift", "DeepLIFT", deep_lift, "gradient", needs_softcam=False,
        reference="Shrikumar et al., ICML 2017",
        notes="By captum, rescale rule from zero in normalised space, signed channel sum. Models with functional or "
        "reused activations, layer normalisation or products of features break the rule and are refused.",
    ),
    Method(
        "occlusion", "Occlusion", occlusion, "many", needs_softcam=False,
        reference="Zeiler & Fergus, ECCV 2014",
        notes="By captum: windows of a seventh of each side in steps of half of that, filled with zero in normalised "
        "space. Blind to what does not fit a window; filled windows are images the network never saw.",
    ),
    Method(
        "rise", "RISE", rise, "many", needs_softcam=False,
        reference="Petsiuk et al., BMVC 2018",
        notes="Own implementation with 1,000 masks (the paper: 4,000 and more) of 7 x 7 cells, so maps are noisy and "
        "coarse; logits less their mean instead of probabilities.",
    ),
    Method(
        "random", "Random map", random_map, "forward", needs_softcam=False,
        reference="The floor: independent uniform values",
        notes="Knows neither the model nor the target; seeded by the image, so it is the same in every run.",
    ),
    Method(
        "edges", "Edge detector", edges, "forward", needs_softcam=False,
        reference="The floor of Adebayo et al., NeurIPS 2018: Sobel gradient of the grey image",
        notes="Knows neither the model nor the target, only the image. A method that is not above it may be one.",
    ),
    Method(
        "center_gaussian", "Centre Gaussian", center_gaussian, "forward", needs_softcam=False,
        reference="The floor of centred objects, Judd et al., ICCV 2009",
        notes="Knows neither the model nor the target nor the image; deviation of a quarter of each side.",
    ),
)  # fmt: skip

METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def list_methods() -> tuple[str, ...]:
    """Return the names of all methods.

    Example:
        >>> "grad_cam" in list_methods()
        True
    """
    return tuple(METHODS)


def get_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        ValueError: If there is none; the message names the closest.
    """
    if name not in METHODS:
        close = get_close_matches(name, METHODS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Expected `method` to be one of {', '.join(METHODS)}, but got {name!r}.{hint}")
    return METHODS[name]


def attribute(
    method: str,
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    layer: str | None = None,
    finite: bool = True,
) -> Tensor:
    """Return one map per image that says where a method sees reasons for the image's target class.

    Maps are raw: their unit, sign and grid are the method's own. The model runs in evaluation mode and is given back
    as it came: modes, `requires_grad`, gradients and hooks, also after an exception.

    Args:
        method: A name of `list_methods()`.
        model: Maps images to logits (N, K).
        images: Images (N, C, H, W), floating point and finite, as the model expects them.
        target: Class indices (N,), an integer type.
        layer: Dotted name of the module that a class activation method looks at; default: the last spatial layer.
        finite: Refuse maps that hold NaN or infinity; otherwise they are returned as they are.

    Returns:
        Maps (N, h, w), float32, detached, on the device of `images`.

    Raises:
        ValueError: If the method is unknown, or an argument has another shape or range.
        TypeError: If `images` or `target` have another dtype.
        UnsupportedModelError: If the method is not defined for this model.
        MissingExtraError: If the method's library is not installed.
        RunError: If a map has to be finite and holds NaN or infinity.
    """
    chosen = get_method(method)
    classes = _check_target(target, _check_images(images))
    if not len(images):
        raise ValueError("Expected `images` to hold at least one image, but got none.")
    if layer is not None and not chosen.at_layer:
        raise ValueError(f"Expected no `layer` for {method!r}, which does not look at one, but got {layer!r}.")
    options = {} if layer is None else {"layer": layer}
    # In the other memory format depthwise convolutions are several times slower on a CPU.
    images = images.contiguous(memory_format=torch.channels_last)
    with borrowed(model), checked_output(model, classes), torch.inference_mode(mode=False), torch.enable_grad():
        maps = chosen.run(model, images, classes, **options).detach()
    unusable = int((~maps.flatten(1).isfinite().all(dim=1)).sum())
    if finite and unusable:
        raise RunError(f"Expected finite maps from {method!r}, but {unusable} of {len(maps)} hold NaN or infinity.")
    return maps


def _check_images(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise TypeError(f"Expected `images` to be floating point, but got {images.dtype}.")
    if images.ndim != 4:
        raise ValueError(f"Expected `images` to be (N, C, H, W), but got {tuple(images.shape)}.")
    if not bool(images.isfinite().all()):
        raise ValueError("Expected `images` to be finite, but got NaN or infinity.")
    return images


def _check_target(target: Tensor, images: Tensor) -> Tensor:
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"Expected `target` to be of an integer type, but got {target.dtype}.")
    if target.shape != images.shape[:1]:
        raise ValueError(f"Expected `target` to be ({len(images)},), but got {tuple(target.shape)}.")
    if target.numel() and int(target.min()) < 0:
        raise ValueError("Expected `target` to be class indices, but got a negative one.")
    return target.to(images.device, torch.long)
