"""A model borrowed for an explanation and given back as it was, also after an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from softcam.nn import evaluating


@contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """Yield `model` in evaluation mode and without gradients; restore what was found on the way out.

    Restored for every submodule: its mode; for every parameter: `requires_grad` and `grad` (the same tensor). The
    buffers of normalisation layers do not change, because the model runs in evaluation mode.

    Args:
        model: Any module.

    Yields:
        The same module.
    """
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        with evaluating(model):
            for parameter, _, _ in parameters:
                parameter.grad = None
            yield model
    finally:
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


@contextmanager
def checked_output(model: nn.Module, target: Tensor) -> Iterator[None]:
    """Check, whenever `model` runs, that its output has a logit for every class of `target`.

    Args:
        model: The module whose calls are watched.
        target: Class indices (N,), not negative.

    Raises:
        ValueError: During a call of the model, if its output is not (N, K) with K above the largest index.
    """

    def check(_module: nn.Module, _inputs: object, output: object) -> None:
        check_logits(output, target)

    with hooked(model, check):
        yield


@contextmanager
def hooked(module: nn.Module, hook: Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]) -> Iterator[None]:
    """Run a forward hook of `module` inside the block only.

    Args:
        module: The module whose calls are watched or changed.
        hook: Called with the module, its inputs and its output; what it returns, unless None, replaces the output.
    """
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def check_logits(output: object, target: Tensor) -> None:
    """Check that a model's output has a logit for every class of `target`.

    Args:
        output: What the model returned.
        target: Class indices (N,), not negative.

    Raises:
        ValueError: If it is not a tensor (N, K) with K above the largest index.
    """
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"Expected `model` to return logits (N, K), but got {shape}.")
    highest = int(target.max())
    if highest >= output.shape[1]:
        raise ValueError(f"Expected `target` to be in [0, {output.shape[1] - 1}], but got a class index of {highest}.")
