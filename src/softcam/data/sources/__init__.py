"""Public data sets, one file each: built-in ones come with a package, downloads are fetched by hand first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from softcam.data.downloads import Download, PreparationSettings
from softcam.data.manifest import Manifest
from softcam.data.preparation import Preparation, prepare
from softcam.data.sources import elpv
from softcam.data.sources.idrid import IDRID
from softcam.data.sources.kaggle_dr import KAGGLE_DR
from softcam.data.sources.retinal_oct import RETINAL_OCT
from softcam.data.sources.rsna import RSNA

SOURCES: Mapping[str, Callable[..., Manifest]] = {"elpv": elpv.prepare}
"""Name of a built-in data set -> function that writes it as images and a manifest."""

DOWNLOADS: Mapping[str, Download] = {download.name: download for download in (KAGGLE_DR, RETINAL_OCT, RSNA, IDRID)}
"""Name of a data set that is downloaded by hand -> how it is prepared."""


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


def prepare_download(
    name: str,
    source: str | Path,
    out: str | Path,
    settings: PreparationSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Preparation:
    """Write a data set that was downloaded by hand as images and a manifest.

    Args:
        name: A key of `DOWNLOADS`.
        source: The download's folder or zip file.
        out: The folder; new, empty, or begun with the same data set and size.
        settings: Default: `PreparationSettings()`.
        progress: Called with the images that are done and those in all.

    Raises:
        ManifestError: If a table is missing or wrong, no image is there, or the folder holds something else.
        ValueError: If there is no such data set or it has no such labels.
    """
    if name not in DOWNLOADS:
        raise ValueError(f"Expected `name` to be one of {', '.join(DOWNLOADS)}, but got {name!r}.")
    return prepare(DOWNLOADS[name], source, out, settings, progress=progress)


__all__ = ["DOWNLOADS", "SOURCES", "PreparationSettings", "elpv", "prepare_download", "prepare_source"]
