"""Images that are drawn rather than taken, so that the place of every finding is known to the pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from softcam.data.manifest import Manifest
from softcam.data.synthesis.drusen import DRUSEN
from softcam.data.synthesis.layouts import LAYOUTS, synthesize_layout
from softcam.data.synthesis.lesions import LESIONS, LesionSettings, synthesize_lesions
from softcam.data.synthesis.opacities import OPACITIES
from softcam.data.synthesis.scene import Scene, SynthesisSettings
from softcam.data.synthesis.sets import write_set

SCENES: Mapping[str, Scene] = {scene.name: scene for scene in (LESIONS, DRUSEN, OPACITIES)}
"""Name of a kind of images -> how it is drawn."""


def synthesize(
    name: str,
    out: str | Path,
    settings: SynthesisSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write images of a kind, their masks and `manifest.csv`.

    Args:
        name: A key of `SCENES`.
        out: The folder; new, empty, or begun with the same name and settings.
        settings: Default: `SynthesisSettings()`.
        progress: Called with the images that are done and those in all.

    Returns:
        The manifest; `write_set` says what is in it.

    Raises:
        ValueError: If there is no such kind; `synthesize_layout` draws the official downloads of data sets.
        ManifestError: If the folder holds something else already.
    """
    if name not in SCENES:
        raise ValueError(f"Expected `name` to be a kind of images ({', '.join(SCENES)}), but got {name!r}.")
    return write_set(SCENES[name], out, settings, progress=progress)


def default_size(name: str) -> int:
    """Return the side, or the height, of an image in pixels where nothing else is asked for."""
    return LAYOUTS[name].size if name in LAYOUTS else SynthesisSettings().size


__all__ = [
    "LAYOUTS",
    "SCENES",
    "LesionSettings",
    "SynthesisSettings",
    "default_size",
    "synthesize",
    "synthesize_layout",
    "synthesize_lesions",
]
