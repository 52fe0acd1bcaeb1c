"""Weights that look trained, for networks without any."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def randomise(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give a fresh network the look of a trained one, put it into eval mode, and return it.

    Norms close to the identity, zero biases, small layer scales and zero-initialised classifiers would hide mistakes.

    Args:
        network: Any module, changed in place; tensors on the meta device stay there.
        seed: Seed of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.is_meta:
                continue
            if parameter.ndim <= 1 and not name.endswith("bias"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif parameter.ndim <= 1 or not parameter.any():
                parameter.normal_(std=0.1, generator=generator)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def materialise(modules: Iterable[nn.Module]) -> None:
    """Move the modules' own parameters and buffers from the meta device to the CPU, as zeros.

    Args:
        modules: Changed in place; their children are left alone.
    """
    for module in modules:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, name, nn.Parameter(_zeros(parameter)))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(module, name, _zeros(buffer))


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor, device="cpu", requires_grad=False)
