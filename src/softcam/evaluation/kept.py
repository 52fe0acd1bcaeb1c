"""What was measured of one method on one batch, kept on disk, so that an evaluation that was ended goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from softcam.evaluation.measures import Measured
from softcam.files import atomic_path

Timed = tuple[Measured, float]
"""What was measured, and the seconds that the maps took."""


class Kept:
    """A folder with one file for each method and batch, named by all that its numbers depend on.

    Args:
        folder: Where they are; None keeps nothing.
        decides: JSON values on which all numbers depend, such as digests of models and versions of libraries.
    """

    def __init__(self, folder: str | Path | None = None, **decides: Any) -> None:
        self.folder = None if folder is None else Path(folder)
        self.decides = json.dumps(decides, sort_keys=True).encode()

    def get(self, method: str, inputs: Callable[[], str], measure: Callable[[], Timed]) -> Timed:
        """Return what was kept, else measure it and keep it.

        Args:
            method: Name of the method.
            inputs: Gives the digest of what the numbers depend on besides; not called if nothing is kept.
            measure: Called if nothing readable is there.
        """
        if self.folder is None:
            return measure()
        name = hashlib.sha256(self.decides + inputs().encode()).hexdigest()[:32]
        path = self.folder / f"{method}-{name}.safetensors"
        found = _read(path)
        if found is None:
            found = measure()
            _write(path, *found)
        return found


def digest_tensors(tensors: Iterable[Tensor]) -> str:
    """Return a SHA-256 over the types, shapes and values of tensors, in their order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().data)
    return total.hexdigest()


def _write(path: Path, measured: Measured, seconds: float) -> None:
    tensors = {f"value/{name}": values.contiguous() for name, values in measured.values.items()}
    tensors |= {f"curve/{curve}/{fill}": rows.contiguous() for (curve, fill), rows in measured.curves.items()}
    tensors["seconds"] = torch.tensor(seconds, dtype=torch.float64)
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary)


def _read(path: Path) -> Timed | None:
    """Return what a file holds; None if it is not there or damaged, as then it is measured again."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError):
        return None
    values, curves = {}, {}
    for name, tensor in tensors.items():
        kind, *rest = name.split("/")
        if kind == "value":
            values[rest[0]] = tensor
        elif kind == "curve":
            curves[rest[0], rest[1]] = tensor
    return Measured(values, curves), float(tensors["seconds"])
