"""The tensors of a bundle: written and read as safetensors, compared with the model before they enter it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from softcam.errors import BundleError

WEIGHTS_NAME = "model.safetensors"
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})


def collect_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a model as tensors on the CPU that share no memory, as safetensors wants them.

    Raises:
        BundleError: If a parameter is not finite, a buffer holds NaN or the state holds something else than tensors.
    """
    state = model.state_dict()
    if other := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise BundleError(f"Expected the state of the model to hold tensors alone, but got others at {other[:3]}.")
    check_finite(model)
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def fingerprint(weights: Mapping[str, Tensor] | nn.Module) -> str:
    """Return the SHA-256 over names, dtypes, shapes and values: equal for equal tensors, however they are stored.

    Args:
        weights: A model or its `state_dict()`.

    Example:
        >>> fingerprint({"bias": torch.zeros(2)}) == fingerprint({"bias": torch.zeros(3)})
        False
    """
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        # The length of each header is part of the hash, so that no two states run into the same bytes.
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
        digest.update(len(header).to_bytes(8, "little") + header)
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read `model.safetensors` of a bundle.

    Raises:
        BundleError: If the file is missing, truncated, damaged, or a pickle is in its place.
    """
    file = folder / WEIGHTS_NAME
    try:
        content = file.read_bytes()
    except OSError as error:
        pickles = sorted(entry.name for entry in folder.glob("*") if entry.suffix.lower() in PICKLES)
        raise BundleError(f"Expected a readable {WEIGHTS_NAME} in the bundle. {_advice(pickles)}") from error
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        # Only now: the length that safetensors begin with may look like the first byte of a pickle.
        if content.startswith((b"PK\x03\x04", b"\x80")):
            msg = f"Expected {WEIGHTS_NAME} to hold safetensors, but it is a pickle. {_advice([file.name])}"
            raise BundleError(msg) from error
        msg = f"Expected {WEIGHTS_NAME} to be whole, but it is truncated or damaged: {error}. Copy the bundle again."
        raise BundleError(msg) from error


def refuse_pickle(path: Path) -> None:
    """Refuse a path that names a pickle.

    Raises:
        BundleError: If the suffix is one that `torch.save` or `pickle` files carry.
    """
    if path.suffix.lower() in PICKLES and not path.is_dir():
        raise BundleError(f"Expected the folder of a bundle, but got {path.name!r}. {_advice([path.name])}")


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put the weights into a model of exactly the same names and shapes, keeping the dtype they were stored in.

    Raises:
        BundleError: If names or shapes differ, or a value is not finite.
    """
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unexpected:
        raise BundleError(
            f"Expected {WEIGHTS_NAME} to hold the tensors of the model, but {len(missing)} are missing "
            f"{missing[:3]} and {len(unexpected)} are unknown {unexpected[:3]}. Was it made for another architecture?"
        )
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise BundleError(
                f"Expected `{name}` to be of shape {tuple(tensor.shape)}, as architecture and classes say, but "
                f"{WEIGHTS_NAME} holds {tuple(weights[name].shape)}. config.json and weights do not belong together."
            )
    # Into the model's own state dict, whose version notes some networks ask for (torchvision's MNASNet).
    own.update(weights)
    model.load_state_dict(own, strict=True, assign=True)
    check_finite(model)


def check_finite(model: nn.Module) -> None:
    """Refuse weights that can only give NaN; infinity is left to buffers such as attention masks.

    Raises:
        BundleError: If a parameter is NaN or infinite, or a buffer is NaN.
    """
    bad = [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]
    bad += [name for name, value in model.named_buffers() if bool(value.isnan().any())]
    if bad:
        raise BundleError(f"Expected finite weights, but got NaN or infinity in {len(bad)} tensors: {bad[:3]}.")


def _advice(pickles: list[str]) -> str:
    if not pickles:
        return "The folder is not a bundle, or it is incomplete: save the model again."
    return (
        f"Loading a pickle ({', '.join(pickles[:3])}) can run any code it carries, so softcam does not. "
        "Build the model in Python, load the weights with torch.load(..., weights_only=True) and call softcam.save."
    )
