"""Run what follows a point of a network on any batch, with what precedes it answering from memory.

Many networks write the batch size of their input down (`x.view(batch, ...)`) and use it after the point where other
features are put in. They have to be run on as many images as there are features; to compute the trunk for each of
those images, which are all the same, would be waste.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Outputs = Mapping[nn.Module, Any]


class Recording(NamedTuple):
    """What modules gave, to be given again without running them.

    Args:
        outputs: By module.
        ticks: By how much the clock went on inside of them.
    """

    outputs: dict[nn.Module, Any]
    ticks: int


def record_outputs(
    network: nn.Module,
    run: Callable[[], object],
    *,
    until: Callable[[], bool],
    clock: Callable[[], int] = lambda: 0,
) -> Recording:
    """Return what the outermost modules gave that ran once, and ended before a point of the forward.

    Args:
        network: Any module.
        run: Runs it on one image.
        until: Says whether the point has been passed.
        clock: What is counted in the course of the forward.
    """
    outputs: dict[nn.Module, Any] = {}
    starts: dict[nn.Module, list[int]] = {}
    ticks: dict[nn.Module, int] = {}

    def begin(module: nn.Module, _inputs: object) -> None:
        starts.setdefault(module, []).append(clock())

    def end(module: nn.Module, _inputs: object, output: Any) -> None:
        if until() or not _is_batch(output):
            return
        outputs[module], ticks[module] = output, clock() - starts[module][-1]
        for inner in list(module.modules())[1:]:
            # At once, since all activations of a network together take more memory than the network.
            outputs.pop(inner, None)

    with ExitStack() as stack:
        for module in list(network.modules())[1:]:
            if isinstance(module, torch.jit.ScriptModule):  # takes no such hooks
                continue
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        run()
    once = {module: output for module, output in outputs.items() if len(starts[module]) == 1}
    return Recording(once, sum(ticks[module] for module in once))


@contextmanager
def shortcut(outputs: Outputs, batch: int) -> Iterator[None]:
    """Let modules return what was recorded, once per image of a batch, instead of running.

    Args:
        outputs: What `record_outputs` gave for one image.
        batch: Number of images.
    """
    own = {module: vars(module).get("forward") for module in outputs}
    try:
        for module, output in outputs.items():
            module.forward = _answer(output, batch)
        yield
    finally:
        for module, forward in own.items():
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward


def _answer(output: Any, batch: int) -> Callable[..., Any]:
    repeated = torch.utils._pytree.tree_map_only(Tensor, lambda part: part.expand(batch, *part.shape[1:]), output)  # noqa: SLF001
    return lambda *_args, **_options: repeated


def _is_batch(output: Any) -> bool:
    """Return whether all that a module gave is tensors of a batch of one."""
    leaves = torch.utils._pytree.tree_leaves(output)  # noqa: SLF001
    return bool(leaves) and all(isinstance(leaf, Tensor) and leaf.ndim > 1 and leaf.shape[0] == 1 for leaf in leaves)
