"""Train and eval mode of borrowed networks, and the modules for which the mode matters most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the body with `model` in eval mode; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises by statistics of the batch in training and by stored ones after it."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - torch's only common base
