"""What was measured of one method on one batch, kept on disk, so that an evaluation that was ended goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from softcam.files import write_atomic

Values = dict[str, Tensor]
"""By name, one value or row of values per image."""


class Kept:
    """A folder with one file for each method, measure and batch, named by all that its numbers depend on.

    Args:
        folder: Where they are; None keeps nothing.
        decides: JSON values on which all numbers depend, such as digests of models and versions of libraries.
    """

    def __init__(self, folder: str | Path | None = None, **decides: Any) -> None:
        self.folder = None if folder is None else Path(folder)
        self.decides = json.dumps(decides, sort_keys=True).encode()

    def get(self, name: str, inputs: Callable[[], str], measure: Callable[[], Values]) -> Values:
        """Return what was kept, else measure it and keep it.

        Args:
            name: Of the method and the measure.
            inputs: Gives the digest of what the numbers depend on besides; not called if nothing is kept.
            measure: Called if nothing readable is there.
        """
        if self.folder is None:
            return measure()
        digest = hashlib.sha256(self.decides + f"{name} {inputs()}".encode()).hexdigest()[:32]
        path = self.folder / f"{re.sub('[^a-z0-9_.]', '-', name.lower())}-{digest}.safetensors"
        found = _read(path)
        if found is None:
            found = measure()
            write_atomic(path, safetensors.torch.save({key: value.contiguous() for key, value in found.items()}))
        return found


def _read(path: Path) -> Values | None:
    """Return what a file holds; None if it is not there or damaged, as then it is measured again."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError):
        return None
