"""Ensembles on disk: one bundle with the weights of all members, and what builds each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softcam.bundle.config import BundleConfig, read_config
from softcam.bundle.folder import load, save
from softcam.bundle.parts import list_parts
from softcam.errors import BundleError
from softcam.nn import Ensemble


def join_bundles(paths: Sequence[str | Path], out: str | Path) -> Path:
    """Write an ensemble of several models as a bundle of its own, which is used like any other.

    Their thresholds and calibrations are not those of the mean, and stay behind: `softcam calibrate` finds its own.

    Args:
        paths: Folders of at least two bundles of the same classes, task and preprocessing; in the order given.
        out: The new folder.

    Returns:
        The folder.

    Raises:
        BundleError: If a bundle cannot be read, or if they do not belong together.
    """
    configs = [read_config(path) for path in paths]
    _check_alike(configs)
    try:
        model = Ensemble([load(path) for path in paths])
    except ValueError as error:
        raise BundleError(str(error)) from error
    first = configs[0]
    task: Any = first.task
    members = [{"fingerprint": config.fingerprint, "data_digest": config.data_digest} for config in configs]
    return save(
        model,
        out,
        classes=first.classes,
        task=task,
        preprocessing=first.preprocessing,
        provenance={"members": members, "data_digest": first.data_digest if _agree(members, "data_digest") else None},
    )


def _check_alike(configs: Sequence[BundleConfig]) -> None:
    if any(map(list_parts, configs)):
        raise BundleError("Expected bundles of single models, but got an ensemble. Join its members and the others.")
    if own := [number for number, config in enumerate(configs, start=1) if config.architecture is None]:
        raise BundleError(
            f"Expected models that softcam can build itself, but number {own[0]} is a module of the user's own. "
            "Join them in Python with `softcam.Ensemble`."
        )
    for name in ("classes", "task", "preprocessing"):
        found = [getattr(config, name) for config in configs]
        for number, value in enumerate(found, start=1):
            if value != found[0]:
                raise BundleError(
                    f"Expected models of the same {name}, but number {number} differs from the first. "
                    "Join models that were trained alike."
                )


def _agree(members: Sequence[dict[str, Any]], name: str) -> bool:
    return len({member[name] for member in members}) == 1
