"""The frozen trunk: which part of a network comes before and within one of its submodules."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softcam.errors import RunError
from softcam.nn import check_cut, evaluating, resolve_module, run_from, run_until


@dataclass(frozen=True)
class Trunk:
    """The part of a network up to and including one submodule.

    Args:
        name: The submodule, named as in the black box.
        modules: The modules that act within the trunk only; to be kept in eval mode.
        parameters: Their parameters, which are frozen.
        example: A tiny image (1, C, h, w) that drives the trunk where its output is replaced.
    """

    name: str
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]
    example: Tensor


def find_trunk(model: nn.Module, name: str, images: Tensor) -> Trunk:
    """Return what comes before and within submodule `name`, found by running the model.

    Args:
        model: A module returning logits, e.g. a SoftCAM model around the network that has the submodule.
        name: The submodule, named as in the black box.
        images: A few images (N, C, H, W) of the size that will be used.

    Raises:
        RunError: If there is no such submodule, or later layers see earlier ones past it.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
        >>> len(find_trunk(net, "1", torch.zeros(1, 1, 40, 40)).parameters)
        2
    """
    try:
        example = check_cut(model, name, images)
    except ValueError as error:
        raise RunError(f"Expected `stages.trunk` to cut the network in two, but {error}") from error
    with evaluating(model):
        used = _tail_parameters(model, name, images[:1], example)
        skipped = _skipped_modules(model, name, images[:1])
    parameters = tuple(item for item in model.parameters() if id(item) not in used)
    frozen = {id(item) for item in parameters}
    # A module that also holds later layers, as the network itself may, has to keep its mode.
    owners = [
        module
        for module in model.modules()
        if (own := list(module.parameters())) and all(id(item) in frozen for item in own)
    ]
    return Trunk(name, tuple({id(item): item for item in (*skipped, *owners)}.values()), parameters, example)


def _tail_parameters(model: nn.Module, name: str, images: Tensor, example: Tensor) -> set[int]:
    flags = [(item, item.requires_grad) for item in model.parameters()]
    model.requires_grad_()
    try:
        with torch.enable_grad():
            logits = run_from(model, name, run_until(model, name, images).detach(), example)
            gradients = torch.autograd.grad(logits.sum(), [item for item, _ in flags], allow_unused=True)
    finally:
        for item, flag in flags:
            item.requires_grad_(flag)
    return {id(item) for (item, _), gradient in zip(flags, gradients, strict=True) if gradient is not None}


def _skipped_modules(model: nn.Module, name: str, images: Tensor) -> list[nn.Module]:
    """Return the leaf modules that run before the end of submodule `name` and never after it."""
    before, after = dict[int, nn.Module](), dict[int, nn.Module]()
    current = before

    def note(module: nn.Module, _inputs: object) -> None:
        current[id(module)] = module

    def pass_cut(_module: nn.Module, _inputs: object, _output: object) -> None:
        nonlocal current
        current = after

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    handles = [module.register_forward_pre_hook(note) for module in leaves]
    handles.append(resolve_module(model, name).register_forward_hook(pass_cut))
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [module for key, module in before.items() if key not in after]
