"""Write a bundle's description anew, in place or into a copy; its weights stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

from softcam.bundle.card import CARD_NAME, write_card
from softcam.bundle.config import CONFIG_NAME, BundleConfig, read_config
from softcam.bundle.folder import check_replaceable
from softcam.bundle.weights import WEIGHTS_NAME
from softcam.errors import BundleError
from softcam.files import atomic_folder, write_atomic


def update(path: str | Path, config: BundleConfig, *, out: str | Path | None = None) -> Path:
    """Give a bundle another description of the same weights.

    In place, `config.json` is replaced as a whole, and then the model card; exported graphs beside it stay. A copy
    appears whole under its name.

    Args:
        path: The bundle's folder.
        config: The new description.
        out: Folder of the copy, new, empty or a bundle; None to work in place.

    Returns:
        The folder with the new description.

    Raises:
        BundleError: If the weights are others, or something else is in the way.
        OSError: If the folder cannot be written.
    """
    folder = Path(path)
    if read_config(folder).fingerprint != config.fingerprint:
        raise BundleError("Expected a description of the same weights, but its fingerprint is another. Use `save`.")
    if out is None or Path(out).resolve() == folder.resolve():
        write_atomic(folder / CONFIG_NAME, config.to_json())
        write_atomic(folder / CARD_NAME, write_card(config))
        return folder
    copy = Path(out)
    check_replaceable(copy)
    with atomic_folder(copy) as new:
        shutil.copyfile(folder / WEIGHTS_NAME, new / WEIGHTS_NAME)
        write_atomic(new / CONFIG_NAME, config.to_json())
        write_atomic(new / CARD_NAME, write_card(config))
    return copy
