"""Weights that others have trained: files of tensors, read without running any code they carry, fitted by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from softcam.bundle.weights import check_finite
from softcam.errors import BundleError, SoftCAMWarning

HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "module", "ema")
"""Under which name a checkpoint of more than weights keeps these; the first that is there counts."""

SHOWN = 5
"""Names that a message lists of each kind."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a file of weights: safetensors, or what `torch.save` wrote of a state dict or of a checkpoint with one.

    Args:
        path: The file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        BundleError: If it is neither, holds anything that only running code could rebuild, or holds no tensors.
    """
    file = Path(path)
    try:
        return safetensors.torch.load_file(file)
    except OSError as error:
        raise BundleError(f"Expected a readable file of weights, but got {str(path)!r}. Check the path.") from error
    except SafetensorError:
        return _find_state(_read_tensors(file), file)


def adopt(network: nn.Module, weights: Mapping[str, Tensor], *, renewed: str | None = None) -> None:
    """Put weights into a network by name; what comes before all names alike, such as `module.`, is left out.

    Args:
        network: Filled in place, in its own dtype.
        weights: Tensors by name. Those that the network does not know are named in a warning.
        renewed: Dotted name of the module that starts anew: its weights are neither needed nor taken.

    Raises:
        BundleError: If a tensor of the network is missing or of another shape, or is not finite, with the names.
    """
    own = network.state_dict()
    prefix = find_prefix(weights, own)
    named = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    wanted = [name for name in own if not _lies_in(name, renewed)]
    fitting = {name: named[name] for name in wanted if name in named and named[name].shape == own[name].shape}
    # Files from before 2018 lack the counters of batch norms, which nothing depends on.
    lost = [name for name in wanted if name not in fitting and not name.endswith("num_batches_tracked")]
    left = [name for name in weights if not name.startswith(prefix) or name.removeprefix(prefix) not in own]
    left = [name for name in left if not _lies_in(name.removeprefix(prefix), renewed)]
    if lost or not fitting:
        raise BundleError(_describe_misfit(lost, left, named, own))
    if left:
        warnings.warn(
            f"Expected a file of the network's weights alone, but it has {len(left)} more, which are left out: "
            f"{_list(left)}.",
            SoftCAMWarning,
            stacklevel=2,
        )
    own.update(fitting)
    network.load_state_dict(own)
    check_finite(network)


def find_prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return what has to be taken from the front of names so that as many as possible fit, in name and in shape.

    Args:
        weights: Tensors of a file.
        own: Tensors of the network.

    Example:
        >>> find_prefix({"module.model.fc.bias": torch.zeros(2), "step": torch.zeros(1)}, {"fc.bias": torch.zeros(2)})
        'module.model.'
    """
    shapes = {name: tensor.shape for name, tensor in own.items()}
    counts = {"": 0}
    for name, tensor in weights.items():
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        for start in starts:
            counts.setdefault(name[:start], 0)
            counts[name[:start]] += shapes.get(name[start:]) == tensor.shape
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)))


def _read_tensors(file: Path) -> Any:
    try:
        # By a stream, since torch goes by the names of files, and safetensors have been tried.
        with file.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise BundleError(_refuse(file, f"names {found[1]}")) from error
        if "TorchScript" in str(error):
            raise BundleError(_refuse(file, "is a TorchScript program")) from error
        raise BundleError(
            f"Expected {file.name!r} to be a file of safetensors or of torch.save, but it is another, or damaged. "
            "Copy it again."
        ) from error


def _refuse(file: Path, reason: str) -> str:
    return (
        f"Expected {file.name!r} to hold tensors alone, but it {reason}, and to read that can run any code it carries, "
        "so softcam does not. Where the file comes from, save the weights alone: "
        "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
    )


def _find_state(loaded: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        for held in (*(loaded.get(name) for name in HOLDERS), loaded):
            if tensors := _list_tensors(held):
                return tensors
    raise BundleError(
        f"Expected {file.name!r} to hold a state dict, at its top or as one of {', '.join(HOLDERS)}, but got "
        f"{_describe(loaded)}."
    )


def _list_tensors(held: Any) -> dict[str, Tensor]:
    if not isinstance(held, Mapping):
        return {}
    return {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _describe(loaded: Any) -> str:
    return f"the names {_list(map(str, loaded))}" if isinstance(loaded, Mapping) else type(loaded).__name__


def _lies_in(name: str, module: str | None) -> bool:
    return module is not None and name.startswith(f"{module}.")


def _describe_misfit(lost: list[str], left: list[str], named: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    absent = [name for name in lost if name not in named]
    shapes = [f"{name} {tuple(named[name].shape)} for {tuple(own[name].shape)}" for name in lost if name in named]
    told = [
        f"{len(items)} {kind} ({_list(items)})"
        for kind, items in (("missing", absent), ("of another shape", shapes), ("unknown to it", left))
        if items
    ]
    return (
        f"Expected a file of weights that fit the network, but of {len(own)} tensors there are {', '.join(told)}. "
        "Name the backbone that the file was made with (`model.backbone`, `model.arguments`); where it is the "
        "classifier that does not fit, leave out `model.new_head`."
    )


def _list(names: Iterable[str]) -> str:
    items = list(names)
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
