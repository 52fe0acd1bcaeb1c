"""The floors that every explanation must beat: maps that know nothing of the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softcam.attribution.seeds import create_generator


def random_map(_model: nn.Module, images: Tensor, _target: Tensor) -> Tensor:
    """Return independent uniform values in [0, 1) per pixel (N, H, W).

    Each image seeds its own generator by a checksum of its values: the same image has the same map in any batch,
    and torch's global generators stay as they are.

    Args:
        _model: Not used.
        images: Images (N, C, H, W).
        _target: Not used.

    Returns:
        Maps (N, H, W), float32.

    Example:
        >>> random_map(nn.Identity(), torch.zeros(2, 3, 4, 5), torch.tensor([0, 1])).shape
        torch.Size([2, 4, 5])
    """
    size = (images.shape[-2], images.shape[-1])
    return torch.stack([torch.rand(size, generator=create_generator(image)) for image in images]).to(images.device)


def edges(_model: nn.Module, images: Tensor, _target: Tensor) -> Tensor:
    """Return the strength of the edges (N, H, W): the length of the Sobel gradient of the grey image.

    Grey is the plain mean of the channels, which is defined for any number of them. Pixels outside repeat the border.

    Args:
        _model: Not used.
        images: Images (N, C, H, W).
        _target: Not used.

    Returns:
        Maps (N, H, W), not negative, in input units per 8 pixels, float32.

    Example:
        >>> edges(nn.Identity(), torch.tensor([[[[0.0, 1.0, 2.0]]]]), torch.tensor([0]))
        tensor([[[4., 8., 4.]]])

    Reference:
        Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, whose maps are likened to an edge detector's.
    """
    grey = F.pad(images.detach().float().mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device)
    slopes = F.conv2d(grey, torch.stack([across, across.T])[:, None])
    return slopes.square().sum(dim=1).sqrt()


def center_gaussian(_model: nn.Module, images: Tensor, _target: Tensor) -> Tensor:
    """Return a Gaussian (N, H, W) around the centre of the image, whose deviation is a quarter of each side.

    It says how much of a score is owed to photographers, who put the object in the middle.

    Args:
        _model: Not used.
        images: Images (N, C, H, W); only their shape matters.
        _target: Not used.

    Returns:
        Maps (N, H, W) in (0, 1], float32.

    Example:
        >>> center_gaussian(nn.Identity(), torch.zeros(1, 3, 1, 5), torch.tensor([0])).argmax().item()
        2

    Reference:
        Judd et al., "Learning to predict where humans look", ICCV 2009, on the bias to the centre.
    """
    height, width = images.shape[-2:]
    rows, columns = (
        torch.exp(-(((torch.arange(side, device=images.device) + 0.5) / side - 0.5) ** 2) / (2 * 0.25**2))
        for side in (height, width)
    )
    return (rows[:, None] * columns).expand(len(images), height, width).clone()
