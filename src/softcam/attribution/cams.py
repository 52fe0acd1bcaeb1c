"""Class activation maps by gradients, through the grad-cam library, as raw maps at the layer's own resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from softcam.attribution.layers import find_target_layer
from softcam.attribution.libraries import load_library


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


def _run(name: str, model: nn.Module, images: Tensor, target: Tensor, at: str | None) -> Tensor:
    library = load_library("pytorch_grad_cam", package="grad-cam")
    targets_module = load_library("pytorch_grad_cam.utils.model_targets", package="grad-cam")
    layer = _find_layer(model, images, at)
    # Cloned because a later in-place ReLU would overwrite the features that the library keeps by reference.
    cam = getattr(library, name)(model, [layer], reshape_transform=torch.clone)
    try:
        targets = [targets_module.ClassifierOutputTarget(int(index)) for index in target]
        return _raw_map(cam, layer, images.detach().clone().requires_grad_(), targets)
    finally:
        cam.activations_and_grads.release()


def _find_layer(model: nn.Module, images: Tensor, name: str | None) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name is not None and name not in modules:
        raise ValueError(f"Expected `layer` to name a module of the model, but got {name!r}.")
    return modules[find_target_layer(model, images) if name is None else name]


def _raw_map(cam: Any, layer: nn.Module, images: Tensor, targets: list[Any]) -> Tensor:
    cam.forward(images, targets)
    recorded = cam.activations_and_grads
    activations, gradients = recorded.activations[-1], recorded.gradients[-1]
    signed = cam.get_cam_image(images, layer, targets, activations.numpy(), gradients.numpy(), eigen_smooth=False)
    return torch.from_numpy(signed).relu().float().to(images.device)
