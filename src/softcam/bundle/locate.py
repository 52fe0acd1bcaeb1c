"""Find the bundle that a user's path means."""

from __future__ import annotations

from pathlib import Path

from softcam.bundle.config import CONFIG_NAME
from softcam.errors import BundleError


def find_bundle(path: str | Path) -> Path:
    """Return the model folder that `path` is, or the one that a training run keeps in it.

    Args:
        path: A bundle, or the folder of a training run.

    Raises:
        BundleError: If there is neither.
    """
    folder = Path(path)
    for candidate in (folder, folder / "model"):
        if (candidate / CONFIG_NAME).is_file():
            return candidate
    state = "holds neither" if folder.is_dir() else "is not a folder"
    raise BundleError(f"Expected a model folder or a finished run, but {str(path)!r} {state}.")
