"""The official downloads of public data sets, drawn: folders, names, tables and formats, one file per data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from softcam.data.synthesis.layouts.kaggle_dr import KAGGLE_DR
from softcam.data.synthesis.layouts.layout import Layout, write_layout
from softcam.data.synthesis.layouts.retinal_oct import RETINAL_OCT
from softcam.data.synthesis.layouts.rsna import RSNA
from softcam.data.synthesis.scene import SynthesisSettings

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (KAGGLE_DR, RETINAL_OCT, RSNA)}
"""Name of a data set -> how its download is drawn."""


def synthesize_layout(
    name: str,
    out: str | Path,
    settings: SynthesisSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write look-alike data in the layout of a data set's official download.

    Args:
        name: A key of `LAYOUTS`.
        out: The folder; new, empty, or begun with the same name and settings.
        settings: Default: `SynthesisSettings` with the layout's size, which is the height of an image.
        progress: Called with the images that are done and those in all.

    Returns:
        The folder; beside the layout it has `masks/` and `synthesis.json`.

    Raises:
        ValueError: If there is no such layout, or a shortcut is asked for.
        ManifestError: If the folder holds something else already.
        MissingExtraError: If the layout is one of DICOM files and pydicom is not installed.
    """
    if name not in LAYOUTS:
        raise ValueError(f"Expected `name` to be a layout ({', '.join(LAYOUTS)}), but got {name!r}.")
    return write_layout(LAYOUTS[name], out, settings, progress=progress)


__all__ = ["LAYOUTS", "Layout", "synthesize_layout"]
