"""Sets of drawn images: numbers become patients, grades and splits, scenes are painted, files and manifest written.

Each image depends on the seed and its own number alone, so that begun work can go on and any image be drawn again.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from softcam._version import __version__
from softcam.data.manifest import Manifest, read_manifest, write_manifest
from softcam.data.synthesis.scene import CONTRAST, Order, Scene, SynthesisSettings
from softcam.errors import ManifestError
from softcam.files import write_atomic

Row = TypeVar("Row")

SPLITS = ("train", "train", "train", "val", "test")
"""Split of the patients in turn."""

GRADES = (1, 2, 3, 4)

SHORTCUT = 0.95
"""Share of training and validation images in which the shortcut's mark agrees with the label."""


@dataclass(frozen=True, eq=False)
class DrawnImage:
    """One image with its truth.

    Args:
        pixels: (S, S) or (S, S, 3) uint8.
        healthy: Likewise, the same image without the finding.
        mask: (S, S) bool, where the finding is.
        grade: 0 without the finding, up to 4.
    """

    pixels: NDArray[np.uint8]
    healthy: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    grade: int


def write_set(
    scene: Scene,
    out: str | Path,
    settings: SynthesisSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write images, masks and `manifest.csv`.

    Labels and splits go by patient: half of the patients have the finding in both images, 60 % are for training, 20 %
    for validation and 20 % for testing. The manifest is written last; the same call continues interrupted work.

    Args:
        scene: The kind of images.
        out: The folder; new, empty, or begun with the same scene and settings.
        settings: Default: `SynthesisSettings()`.
        progress: Called with the images that are done and those in all.

    Returns:
        The manifest, with the columns `image`, `label`, `split`, `patient`, `mask` (empty without the finding), `grade`
        and the one that tells a patient's images apart.

    Raises:
        ManifestError: If the folder holds something else already.
    """
    settings = settings or SynthesisSettings()
    folder = Path(out)
    claim_folder(folder, scene.name, settings)
    rows = write_all(partial(_write_image, folder=folder, scene=scene, settings=settings), settings.images, progress)
    write_manifest(pd.DataFrame(rows), folder / "manifest.csv")
    return read_manifest(folder / "manifest.csv", classes=scene.classes)


def draw_image(scene: Scene, index: int, settings: SynthesisSettings) -> DrawnImage:
    """Return one image of a set.

    Args:
        scene: The kind of images.
        index: Its number, from 0; two in a row are of one patient.
        settings: Of the set.
    """
    grade = grade_of(index, settings)
    patient, moment = create_generator(settings, 0, index // 2), create_generator(settings, 1, index)
    contrast = CONTRAST[settings.difficulty]
    painting = scene.paint(Order(settings.size, grade, contrast, index % 2 == 0, patient, moment))
    if is_marked(index, settings):
        scene.mark(painting.picture)
        scene.mark(painting.healthy)
    return DrawnImage(_to_bytes(painting.picture), _to_bytes(painting.healthy), painting.mask, grade)


def grade_of(index: int, settings: SynthesisSettings) -> int:
    """Return the grade of an image: 0 for every other patient, else 1 to 4."""
    if (index // 2) % 2 == 0:
        return 0
    return int(create_generator(settings, 3, index).choice(GRADES))


def split_of(index: int) -> str:
    """Return the split of an image, which is that of its patient."""
    return SPLITS[(index // 4) % len(SPLITS)]


def is_marked(index: int, settings: SynthesisSettings) -> bool:
    """Return whether an image has the shortcut's mark."""
    if not settings.shortcut:
        return False
    agrees = create_generator(settings, 2, index).random() < (0.5 if split_of(index) == "test" else SHORTCUT)
    return bool((grade_of(index, settings) > 0) == agrees)


def create_generator(settings: SynthesisSettings, purpose: int, number: int) -> np.random.Generator:
    """Return the random numbers of one purpose for one image or patient of a set."""
    return np.random.default_rng(np.random.SeedSequence([settings.seed, purpose, number]))


def _to_bytes(picture: NDArray[np.float64]) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = np.round(picture * 255).astype(np.uint8)
    return result


def claim_folder(folder: Path, what: str, settings: SynthesisSettings) -> None:
    """Write the settings into a new folder, or compare them with those that are there.

    Args:
        folder: New, empty, or claimed before.
        what: Name of the kind of images.
        settings: Of the set.

    Raises:
        ManifestError: If the folder holds something else already.
    """
    path = folder / "synthesis.json"
    record = json.dumps({"what": what, "softcam": __version__, **asdict(settings)}, indent=2) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == record:
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ManifestError(
            [f"Expected a folder that is new, empty or begun with the same settings, but got {folder}. Choose another."]
        )
    write_atomic(path, record)


def write_all(write: Callable[[int], Row], images: int, progress: Callable[[int, int], None] | None) -> list[Row]:
    """Call `write` for the number of every image, several at a time, and return what it returns, in their order."""
    rows: list[Row] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in pool.map(write, range(images)):
            rows.append(row)
            if progress is not None:
                progress(len(rows), images)
    return rows


def _write_image(index: int, *, folder: Path, scene: Scene, settings: SynthesisSettings) -> dict[str, Any]:
    name, grade = f"{index:06d}.png", grade_of(index, settings)
    image, mask = folder / "images" / name, folder / "masks" / name
    # The mask first, so that an image that is there is done.
    if not image.is_file():
        drawn = draw_image(scene, index, settings)
        if grade:
            _write_png(mask, drawn.mask.astype(np.uint8) * 255)
        _write_png(image, drawn.pixels)
    column, values = scene.pair
    return {
        "image": f"images/{name}",
        "label": scene.classes[grade > 0],
        "split": split_of(index),
        "patient": f"p{index // 2:06d}",
        "mask": f"masks/{name}" if grade else "",
        "grade": grade,
        column: values[index % 2],
    }


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    write_atomic(path, stream.getvalue())
