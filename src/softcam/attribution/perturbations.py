"""Explanations by perturbation: what the logit loses, or keeps, where parts of image or features are hidden."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softcam.attribution.layers import get_layer, read_features
from softcam.attribution.state import hooked
from softcam.libraries import load_library

_BATCH = 32
_WINDOWS = 7
_CELLS = 7
_SHOWN = 0.5


def score_cam(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return Score-CAM maps (N, h, w): features weighted by the logit of the image seen through each of them.

    `map = relu(sum_d softmax_d(logit(image * mask_d)) * feature_d)`, where `mask_d` is the feature resized to the image
    and scaled to [0, 1]; what it hides becomes zero in the model's normalised space, the mean colour. One forward pass
    per channel, 32 at once. The grad-cam library computes the same, but holds the masked images of all channels (13 GB
    for 2,048 channels at 512 px) and the features of each.

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, neither scaled nor resized, float32.

    Raises:
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Wang et al., "Score-CAM", CVPR 2020 workshops, equations 6 to 8.
    """
    module = get_layer(model, images, layer)
    maps = []
    with torch.no_grad():
        for image, index in _each(images, target):
            features = read_features(model, image, module)[0]
            seen = [_see_through(model, image, part, index) for part in torch.split(features, _BATCH)]
            maps.append(torch.einsum("d,dhw->hw", torch.cat(seen).softmax(dim=0), features).relu())
    return torch.stack(maps).float()


def ablation_cam(model: nn.Module, images: Tensor, target: Tensor, *, layer: str | None = None) -> Tensor:
    """Return Ablation-CAM maps (N, h, w): features weighted by what the logit loses without each of them.

    `map = relu(sum_d (logit - logit_d) * feature_d)`, where `logit_d` is the logit with channel d set to zero. The
    paper divides the loss by the logit, which scales each image's map and turns its sign where the logit is negative;
    this is left out. One forward pass per channel, 32 at once. The grad-cam library is not used: where features can be
    negative it does not set a channel to zero but far below the others, the farther the later its place in the batch;
    and it leaves the layer replaced if the model fails.

    Args:
        model: Any module with a spatial layer.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        layer: Dotted name of the module whose output is weighed; default: what `find_target_layer` names.

    Returns:
        Maps (N, h, w), not negative, neither scaled nor resized, float32.

    Raises:
        UnsupportedModelError: If the model has no spatial layer.

    Reference:
        Desai & Ramaswamy, "Ablation-CAM", WACV 2020, equations 1 to 3.
    """
    module = get_layer(model, images, layer)
    maps = []
    with torch.no_grad():
        for image, index in _each(images, target):
            features = read_features(model, image, module)[0]
            channels = torch.split(torch.arange(len(features), device=features.device), _BATCH)
            left = [_ablate(model, image, module, part, index) for part in channels]
            lost = _predict(model, image, index) - torch.cat(left)
            maps.append(torch.einsum("d,dhw->hw", lost, features).relu())
    return torch.stack(maps).float()


def occlusion(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Return occlusion maps (N, H, W): what the logit loses on average while a window covers the pixel.

    A window has a seventh of each side of the image (32 px at 224) and moves by half of that, so there are 169 forward
    passes for an image. What it covers becomes zero in the model's normalised space, the mean colour.

    Args:
        model: Any module.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).

    Returns:
        Maps (N, H, W), signed, in logit units, float32.

    Raises:
        MissingExtraError: If captum is not installed.

    Reference:
        Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 2.1.
    """
    captum = load_library("captum.attr", extra="peers")
    window = [max(1, round(side / _WINDOWS)) for side in images.shape[-2:]]
    maps: Tensor = captum.Occlusion(model).attribute(
        images.detach(),
        target=target,
        sliding_window_shapes=(images.shape[1], *window),
        strides=(images.shape[1], *(max(1, side // 2) for side in window)),
        perturbations_per_eval=max(1, _BATCH // len(images)),
    )
    # Every channel of a pixel has the same value, because a window covers them all.
    return maps[:, 0].float()


def rise(model: nn.Module, images: Tensor, target: Tensor, *, masks: int = 1000) -> Tensor:
    """Return RISE maps (N, H, W): how much higher the logit is, on average, where the pixel is seen.

    `map = mean_m((logit_m - mean logit) * mask_m) / 0.5` over random masks, each a grid of 7 x 7 cells, open or closed
    with equal chances, resized bilinearly and shifted at random; what is hidden becomes zero in the model's normalised
    space, the mean colour. The paper uses probabilities, and 4,000 to 8,000 masks; the mean that is taken away here
    moves the map of an image by a constant and rids it of the noise that this constant would bring with few masks. All
    images have the same masks, drawn by a generator of their own. There is no implementation in captum.

    Args:
        model: Any module.
        images: Images (N, C, H, W) as the model expects them.
        target: Class indices (N,).
        masks: Number of masks and of forward passes, at least 2; 32 are computed at once.

    Returns:
        Maps (N, H, W), signed, in logit units, float32.

    Raises:
        ValueError: If `masks` is below two.

    Reference:
        Petsiuk et al., "RISE", BMVC 2018, equations 4 to 6 and section 3.2.
    """
    if masks < 2:
        raise ValueError(f"Expected `masks` to be at least 2, but got {masks}.")
    height, width = images.shape[-2:]
    seen, shown = images.new_zeros(images.shape[0], height, width), images.new_zeros(height, width)
    total = images.new_zeros(len(images))
    with torch.no_grad():
        for drawn in draw_masks(masks, (height, width)):
            part = drawn.to(images)
            logits = torch.stack(
                [_predict(model, image * part[:, None], index) for image, index in _each(images, target)]
            )
            seen += torch.einsum("nm,mhw->nhw", logits, part)
            shown += part.sum(dim=0)
            total += logits.sum(dim=1)
    return ((seen - total[:, None, None] / masks * shown) / (masks * _SHOWN)).float()


def draw_masks(count: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the masks of `rise`, at most 32 at once; the same at every call.

    Args:
        count: Number of masks in all.
        size: Height and width of the image in pixels.

    Yields:
        Masks (M, H, W) in [0, 1], 0.5 on average, float32.

    Example:
        >>> [tuple(masks.shape) for masks in draw_masks(40, (9, 14))]
        [(32, 9, 14), (8, 9, 14)]
    """
    generator = torch.Generator().manual_seed(0)
    cell = [math.ceil(side / _CELLS) for side in size]
    for start in range(0, count, _BATCH):
        number = min(_BATCH, count - start)
        grid = (torch.rand(number, 1, _CELLS, _CELLS, generator=generator) < _SHOWN).float()
        large = F.interpolate(grid, [(_CELLS + 1) * side for side in cell], mode="bilinear", align_corners=False)[:, 0]
        tops, lefts = (torch.randint(side, (number,), generator=generator).tolist() for side in cell)
        yield torch.stack(
            [mask[y : y + size[0], x : x + size[1]] for mask, y, x in zip(large, tops, lefts, strict=True)]
        )


def _each(images: Tensor, target: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Yield each image as a batch (1, C, H, W) of its own with its class."""
    return zip(torch.split(images.detach(), 1), target.tolist(), strict=True)


def _predict(model: nn.Module, images: Tensor, index: int) -> Tensor:
    # What a mask multiplies takes the mask's memory format; in that, depthwise convolutions are several times slower.
    logits: Tensor = model(images.contiguous(memory_format=torch.channels_last))
    return logits[:, index]


def _see_through(model: nn.Module, image: Tensor, features: Tensor, index: int) -> Tensor:
    # The corners are aligned and 1e-8 is added as in the grad-cam library.
    masks = F.interpolate(features[:, None], image.shape[-2:], mode="bilinear", align_corners=True)
    low, high = masks.amin((-2, -1), keepdim=True), masks.amax((-2, -1), keepdim=True)
    return _predict(model, image * ((masks - low) / (high - low + 1e-8)), index)


def _ablate(model: nn.Module, image: Tensor, module: nn.Module, channels: Tensor, index: int) -> Tensor:
    def clear(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[torch.arange(len(channels), device=output.device), channels] = 0
        return changed

    # The whole model sees the repeated image: what joins the features further on must have their batch size.
    with hooked(module, clear):
        return _predict(model, image.expand(len(channels), -1, -1, -1), index)
