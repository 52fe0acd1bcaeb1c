"""What a metric asks a model: its answer for a target, or the maps of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from softcam.metrics.inputs import check_maps

Predict: TypeAlias = Callable[[Tensor], Tensor]
Explain: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# Rounding of half-precision probabilities.
_PROBABILITY_TOLERANCE = 1e-3


def check_target(target: Tensor, size: int, name: str = "target") -> Tensor:
    """Return (N,) class indices as int64.

    Raises:
        ValueError: If they are not whole numbers, or not one for each of `size` images.
    """
    if target.shape != (size,) or target.is_floating_point():
        raise ValueError(
            f"Expected `{name}` to be ({size},) integers, but got {tuple(target.shape)} {target.dtype}. "
            "Pass one class index per image."
        )
    return target.detach().long()


def check_images(images: Tensor) -> Tensor:
    """Return (N, C, H, W) images without their gradient.

    Raises:
        ValueError: If they have other dimensions or an empty one.
    """
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(
            f"Expected `images` to be (N, C, H, W) without empty sides, but got {tuple(images.shape)}. "
            "Pass a batch of network inputs."
        )
    return images.detach()


def check_probabilities(values: Tensor, name: str) -> None:
    """Raise ValueError unless all values lie in [0, 1], up to the rounding of half precision."""
    inside = (values >= -_PROBABILITY_TOLERANCE) & (values <= 1 + _PROBABILITY_TOLERANCE)
    if not inside.all():
        raise ValueError(
            f"Expected `{name}` to give probabilities in [0, 1], but got others or NaN. Apply softmax or sigmoid."
        )


def ask_output(predict: Predict, images: Tensor, target: Tensor) -> Tensor:
    """Ask for the target's output, of any unit, without gradients.

    Args:
        predict: (N, C, H, W) to (N, K).
        images: (N, C, H, W).
        target: (N,) class indices.

    Returns:
        (N,) float64 on the device of what `predict` returns.

    Raises:
        ValueError: If `predict` returns another shape or values that are not finite, or a target is not a class.
    """
    picked = _pick(predict, images, target)
    if not torch.isfinite(picked).all():
        raise ValueError("Expected `predict` to give finite outputs, but got NaN or infinity. Check the model.")
    return picked


def ask_probability(predict: Predict, images: Tensor, target: Tensor) -> Tensor:
    """Ask for the target's probability; as `ask_output`, in [0, 1], and ValueError for what is no probability."""
    picked = _pick(predict, images, target)
    check_probabilities(picked, "predict")
    return picked.clamp(0, 1)


def ask_maps(explain: Explain, images: Tensor, target: Tensor, *, finite: bool = True) -> Tensor:
    """Ask for the maps of the target.

    Args:
        explain: Images (N, C, H, W) and class indices (N,) to maps (N, h, w); free to use gradients.
        images: (N, C, H, W).
        target: (N,) class indices.
        finite: Refuse NaN and infinity.

    Returns:
        (N, h, w) float64.

    Raises:
        TypeError: If the maps are not floating point.
        ValueError: If there is not one map per image, or a value is not finite where it has to be.
    """
    maps = check_maps(explain(images, target.to(images.device)), "explain(images, target)", finite=finite)
    if len(maps) != len(images):
        raise ValueError(
            f"Expected `explain` to return {len(images)} maps, but got {len(maps)}. Return one map per image."
        )
    return maps


def _pick(predict: Predict, images: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        outputs = predict(images)
    if outputs.ndim != 2 or len(outputs) != len(target):
        raise ValueError(
            f"Expected `predict` to return ({len(target)}, K), but got {tuple(outputs.shape)}. "
            "Return one row of probabilities per image."
        )
    if int(target.min()) < 0 or int(target.max()) >= outputs.shape[1]:
        raise ValueError(
            f"Expected `target` to lie in [0, {outputs.shape[1]}), but got {int(target.min())} to "
            f"{int(target.max())}. Pass class indices of this model."
        )
    return outputs.double().gather(1, target.long().to(outputs.device)[:, None])[:, 0]
