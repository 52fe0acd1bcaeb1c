"""Run a network up to one of its modules, or onwards from it.

Training on cached features needs a network in two halves without taking it apart. `run_from` feeds a tiny example
image, which makes everything before the module nearly free, and puts the given activations in the place of the
module's output. It works for any network whose later layers see the earlier ones through that module alone, which
`check_cut` verifies by numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from softcam.errors import UnsupportedModelError
from softcam.nn.modes import evaluating

EXAMPLE_SIZE = 32
"""Pixels a side of an image that only drives what is skipped: enough for five halvings."""


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a forward to end it once the wanted activation is known."""


def resolve_module(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule called `name`, also where `model` wraps the network that has it.

    Args:
        model: Any module, e.g. a SoftCAM model around the network.
        name: Dotted name such as `blocks.4`; a name relative to the wrapped network is found if it is unique.

    Raises:
        ValueError: If no submodule, or more than one, has that name.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    matches = [name] if name in modules else [path for path in modules if path.endswith(f".network.{name}")]
    if len(matches) != 1:
        found = ", ".join(path for path in list(modules)[1:40] if path.count(".") <= 1)
        raise ValueError(f"Expected `name` to be one submodule, but got {name!r}. Choose among: {found}.")
    return modules[matches[0]]


def run_until(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return the output of submodule `name` for `images`; nothing after it is computed.

    Args:
        model: Any module.
        name: Dotted name of the submodule.
        images: (N, C, H, W).
    """
    outputs: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)
        raise _Reached

    # Before a hook that ends the forward there (`NamedFeatures`).
    handle = resolve_module(model, name).register_forward_hook(stop, prepend=True)
    try:
        model(images)
    except _Reached:
        return outputs[0]
    finally:
        handle.remove()
    raise ValueError(f"Expected submodule {name!r} to run in the forward pass, but it did not.")


def run_from(
    model: nn.Module,
    name: str,
    activations: Tensor,
    example: Tensor,
    *,
    call: Callable[[Tensor], Any] | None = None,
) -> Any:
    """Return the output of `model` with `activations` in the place of submodule `name`'s output.

    Args:
        model: Any module.
        name: Dotted name of the submodule.
        activations: What the submodule gave for the images, (N, ...).
        example: A small image batch (1, C, h, w) that drives the part that is skipped.
        call: What runs the model, such as `model.evidence`; default: the model itself.
    """

    def substitute(_module: nn.Module, _inputs: object, _output: Tensor) -> Tensor:
        return activations

    handle = resolve_module(model, name).register_forward_hook(substitute, prepend=True)
    try:
        return (call or model)(example)
    finally:
        handle.remove()


def run_logits(network: nn.Module, images: Tensor, classifier: str | None) -> Any:
    """Return what a network gives, or the output of its last call of the module `classifier`.

    Args:
        network: Any module.
        images: (N, C, *size).
        classifier: Dotted name of a module.

    Raises:
        UnsupportedModelError: If that module is not called.
    """
    if classifier is None:
        return network(images)
    outputs: list[Any] = []

    def note(_module: nn.Module, _inputs: object, output: Any) -> None:
        outputs.append(output)

    handle = network.get_submodule(classifier).register_forward_hook(note)
    try:
        network(images)
    finally:
        handle.remove()
    if not outputs:
        raise UnsupportedModelError(f"Expected `classifier` to name a module that runs, but {classifier!r} does not.")
    return outputs[-1]


def check_cut(model: nn.Module, name: str, images: Tensor, *, tolerance: float = 1e-4) -> Tensor:
    """Raise unless everything after submodule `name` depends on the image through that module alone.

    Args:
        model: A module whose output is a tensor.
        name: Dotted name of the submodule.
        images: A few images (N, C, *size) of the size that will be used.
        tolerance: Largest accepted difference relative to the largest absolute output.

    Returns:
        An empty image that drives the skipped part in `run_from`: 32 pixels a side, or of the full size where the
        network takes no other.

    Raises:
        ValueError: If the output differs, or if the network does not run, with the activations put in.
    """
    with evaluating(model), torch.no_grad():
        whole = model(images)
        activations = run_until(model, name, images)
        reason = "later layers also see earlier ones. Choose the output of a whole stage."
        for example in _list_examples(images):
            try:
                halves = run_from(model, name, activations, example)
            except (RuntimeError, AssertionError, ValueError) as error:
                reason = str(error)
                continue
            if halves.shape == whole.shape and (halves - whole).abs().max() <= tolerance * whole.abs().max():
                return example
    raise ValueError(f"Expected {name!r} to be the only way through the network, but {reason}")


def _list_examples(images: Tensor) -> tuple[Tensor, ...]:
    size = images.shape[2:]
    small = [min(EXAMPLE_SIZE, extent) for extent in size]
    return tuple(images.new_zeros(1, images.shape[1], *extents) for extents in (small, size))
