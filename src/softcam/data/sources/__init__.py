"""Public data sets, one file each, whose `prepare` turns them into a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from softcam.data.manifest import Manifest
from softcam.data.sources import elpv

SOURCES: Mapping[str, Callable[..., Manifest]] = {"elpv": elpv.prepare}
"""Name of a data set -> function that writes it as images and a manifest."""


def prepare_source(name: str, out: str | Path, *, seed: int = 0) -> Manifest:
    """Write a built-in data set as images and a manifest.

    Args:
        name: A key of `SOURCES`.
        out: The folder, created if needed.
        seed: Draws another split for another number.

    Raises:
        ValueError: If there is no such data set.
    """
    if name not in SOURCES:
        raise ValueError(f"Expected `name` to be a built-in data set ({', '.join(SOURCES)}), but got {name!r}.")
    return SOURCES[name](out, seed=seed)


__all__ = ["SOURCES", "elpv", "prepare_source"]
