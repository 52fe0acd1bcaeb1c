"""Class activation maps by gradients, through the grad-cam library, as raw maps at the layer's own resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softcam.attribution.layers import find_stages, get_layer, read_features
from softcam.attribution.passes import digest_tensors, run_once
from softcam.attribution.state import hooked
from softcam.errors import UnsupportedModelError
from softcam.libraries import load_library
from softcam.metrics.patches import resize_maps

Objective = Callable[[Tensor], Tensor]
"""From the logits (K,) of one image to the number whose gradient weighs the features."""

_SIMILAR = 3
_STAGES = 3


def grad_cam(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return Grad-CAM maps (N, h, w): relu of the features weighted by their spatially averaged gradients.

    `map = relu(sum_d mean_xy(d logit / d feature_d) * feature_d)` at the layer that `find_target_layer` names. The
    library would scale each map to [0, 1] and resize it to the image; both steps are left out here, so the values
    keep their size and the grid is the layer's.

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2.
    """
    return _run("GradCAM", model, images, target, layer)


def layer_cam(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return LayerCAM maps (N, h, w): relu of the features weighted by their positive gradients, cell by cell.

    `map = relu(sum_d relu(d logit / d feature_d) * feature_d)`, neither scaled nor resized (see `grad_cam`).

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Jiang et al., "LayerCAM", IEEE TIP 2021, equations 6 to 8.
    """
    return _run("LayerCAM", model, images, target, layer)


def grad_cam_plus_plus(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return Grad-CAM++ maps (N, h, w): features weighted by sums of their positive gradients, each by its own share.

    Neither scaled nor resized (see `grad_cam`).

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Chattopadhay et al., "Grad-CAM++", WACV 2018, equation 19.
    """
    return _run("GradCAMPlusPlus", model, images, target, layer)


def hires_cam(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return HiResCAM maps (N, h, w): relu of the features times their gradients, summed over channels.

    `map = relu(sum_d (d logit / d feature_d) * feature_d)`, neither scaled nor resized (see `grad_cam`).

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Draelos & Carin, "Use HiResCAM instead of Grad-CAM", 2020, equation 3.
    """
    return _run("HiResCAM", model, images, target, layer)


def xgrad_cam(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return XGrad-CAM maps (N, h, w): features weighted by their gradients, averaged with the features as weights.

    `map = relu(sum_d w_d * feature_d)`, `w_d = sum_xy(d logit / d feature_d * feature_d) / sum_xy(feature_d)`, neither
    scaled nor resized (see `grad_cam`). Where a channel has both signs, its sum, and with it the weight, means little.

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Fu et al., "Axiom-based Grad-CAM", BMVC 2020, equation 8.
    """
    return _run("XGradCAM", model, images, target, layer)


def finer_cam(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return Finer-CAM maps (N, h, w): Grad-CAM of the target's logit less the logits of the classes most like it.

    Those are the three whose logits are nearest to the target's, or all others if there are fewer; with two classes
    the rival. Their logits are averaged with their probabilities as weights, whose gradient counts too, as in the
    grad-cam library at its strength of 1. Its own objective adds 1e-9 to the sum of the weights, which turns the sign
    of the gradient once the target's logit leads by more than about 21; here the weights are a softmax. Neither scaled
    nor resized (see `grad_cam`).

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has no spatial layer, or one class only.

    Reference:
        Zhang et al., "Finer-CAM", CVPR 2025, section 3.
    """
    with torch.no_grad():
        similar = _find_similar(model(images), target)
    objectives = [_Contrast(int(index), rivals) for index, rivals in zip(target, similar, strict=True)]
    return _run("GradCAM", model, images, target, layer, objectives)


def refine_cam(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Return RefineCAM maps (N, H, W): the product of the Grad-CAM++ maps of the last three stages.

    The stages are what `find_stages` names. A product needs factors of one size and scale: each map is resized to the
    image and scaled to [0, 1], as in the grad-cam library. The product is left as it is.

    Args:
        model: Any module with stages of two or more grids.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).

    Returns:
        Maps (N, H, W) in [0, 1], float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has fewer than two stages.

    Reference:
        Domeniconi et al., "How to evaluate and refine your CAM", 2026, arXiv:2605.14641.
    """
    stages = find_stages(model, images, count=_STAGES)
    if len(stages) < 2:
        raise UnsupportedModelError(
            f"Expected `model` to have stages of two or more grids, but got only {stages[0]!r}. Use grad_cam_plus_plus."
        )
    size = (images.shape[-2], images.shape[-1])
    maps = [resize_maps(grad_cam_plus_plus(model, images, target, layer=stage), size) for stage in stages]
    return torch.stack([_scale(each) for each in maps]).prod(dim=0)


def eigen_cam(model: nn.Module, images: Tensor, _target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return Eigen-CAM maps (N, h, w): the features of an image along their first principal axis, whatever the class.

    As in the grad-cam library the features are centred over the cells, which the paper does not do; so the axis has no
    sign of its own. It is turned so that the value farthest from zero is positive, the rule of Seg-Eigen-CAM, and
    negative values are cut. Neither scaled nor resized (see `grad_cam`). The decomposition is the library's, image by
    image, and needs memory for a square of the number of cells: choose no layer with more than some 10,000.

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        _target: Not used.
        layer: Dotted name of the module whose output is decomposed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, float32.

    Raises:
        MissingExtraError: If the grad-cam library is not installed.
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Muhammad & Yeasin, "Eigen-CAM", IJCNN 2020, section III; the sign: Chung & Ying, "Seg-Eigen-CAM", Applied
        Sciences 2025, equation 13.
    """
    library = load_library("pytorch_grad_cam.utils.svd_on_activations", package="grad-cam", extra="peers")
    features = read_features(model, images, get_layer(model, images, layer))
    signed = torch.from_numpy(library.get_2d_projection(features.float().cpu().numpy()))
    farthest = signed.flatten(1).gather(1, signed.flatten(1).abs().argmax(dim=1, keepdim=True))
    return (signed * farthest.sign()[..., None]).relu().to(images.device)


@dataclass(frozen=True, eq=False)
class _Contrast:
    """The logit of a class less the mean logit of those like it, weighted by their probabilities."""

    index: int
    similar: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        rivals = logits[self.similar]
        return logits[self.index] - (rivals.softmax(dim=0) * rivals).sum()


def _find_similar(logits: Tensor, target: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        raise UnsupportedModelError(
            f"Expected `model` to have at least two classes, but got logits {tuple(logits.shape)}. Use grad_cam."
        )
    distance = (logits - logits.gather(1, target[:, None])).abs().scatter(1, target[:, None], torch.inf)
    return distance.topk(min(_SIMILAR, logits.shape[1] - 1), largest=False).indices


def _scale(maps: Tensor) -> Tensor:
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def _run(
    name: str,
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    at: str | None,
    objectives: Sequence[Objective] | None = None,
) -> Tensor:
    library = load_library("pytorch_grad_cam", package="grad-cam", extra="peers")
    targets_module = load_library("pytorch_grad_cam.utils.model_targets", package="grad-cam", extra="peers")
    layer = get_layer(model, images, at)
    if at is not None:
        # Refuses a layer without features of a grid, which the library would fail on.
        read_features(model, images[:1], layer)
    targets = objectives or [targets_module.ClassifierOutputTarget(int(index)) for index in target]
    model.requires_grad_(requires_grad=False)
    with hooked(layer, _begin_graph):
        # Cloned because a later in-place ReLU would overwrite the features that the library keeps by reference.
        cam = getattr(library, name)(model, [layer], reshape_transform=torch.clone)
        try:
            recorded = run_once(
                lambda: (id(model), at, digest_tensors((images, target)), *(objectives or ())),
                lambda: _record(cam, images.detach(), targets),
            )
            signed = cam.get_cam_image(images, layer, targets, *recorded, eigen_smooth=False)
        finally:
            cam.activations_and_grads.release()
    return torch.from_numpy(signed).relu().float().to(images.device)


def _begin_graph(_module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
    # The gradient is wanted at the layer; without a graph before it most of the time and memory is saved. Cloned
    # because an in-place activation may not follow a leaf.
    return features.detach().requires_grad_().clone()


def _record(cam: Any, images: Tensor, targets: Sequence[Objective]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the layer's features and the gradient of the objectives there, (N, D, h, w) each."""
    cam.forward(images, targets)
    recorded = cam.activations_and_grads
    return recorded.activations[-1].numpy(), recorded.gradients[-1].numpy()
