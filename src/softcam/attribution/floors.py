"""The floor that every explanation must beat: a map that knows nothing of the model."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn


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
    maps = [torch.rand(size, generator=torch.Generator().manual_seed(_checksum(image))) for image in images]
    return torch.stack(maps).to(images.device)


def _checksum(image: Tensor) -> int:
    return zlib.crc32(image.detach().float().cpu().contiguous().numpy().tobytes())
