"""Drawn fundus photographs with retinal lesions, and masks that know every pixel of them.

Microaneurysms, haemorrhages and exudates decide the label; pigment, pale spots, dust and reflexes are as frequent
without them. Each image depends on the seed and its own number alone.
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
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from softcam._version import __version__
from softcam.data.manifest import Manifest, read_manifest, write_manifest
from softcam.data.synthesis.canvas import Picture, Point, Stamp, blend, ragged_spot, spot, tint
from softcam.data.synthesis.fundus import Fundus, draw_fundus, draw_patient
from softcam.errors import ManifestError
from softcam.files import write_atomic

Difficulty = Literal["easy", "medium", "hard"]

CLASSES = ("healthy", "lesions")
SPLITS = ("train", "train", "train", "val", "test")
"""Split of the patients in turn."""

GRADES = (1, 2, 3, 4)
CONTRAST: dict[Difficulty, float] = {"easy": 1.0, "medium": 0.75, "hard": 0.5}
COUNTS: dict[int, tuple[int, int, int]] = {0: (0, 0, 0), 1: (3, 1, 0), 2: (5, 1, 1), 3: (7, 3, 1), 4: (10, 4, 2)}
"""Microaneurysms, haemorrhages and clusters of exudates by grade."""

SHORTCUT = 0.95
"""Share of training and validation images in which the shortcut's mark agrees with the label."""


@dataclass(frozen=True)
class LesionSettings:
    """What decides a set of images.

    Args:
        images: How many, two per patient, >= 10.
        size: Side in pixels, >= 64.
        seed: Of everything.
        difficulty: Contrast of the lesions.
        shortcut: Whether a small mark in the corner gives the label away in training and validation, not in testing.
    """

    images: int = 2000
    size: int = 224
    seed: int = 0
    difficulty: Difficulty = "medium"
    shortcut: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.images < 10 or self.size < 64 or self.seed < 0 or self.difficulty not in get_args(Difficulty):
            raise ValueError(
                "Expected `images` >= 10, `size` >= 64, `seed` >= 0 and `difficulty` to be easy, medium or hard, but "
                f"got {asdict(self)}."
            )


@dataclass(frozen=True, eq=False)
class LesionImage:
    """One image with its truth.

    Args:
        pixels: (S, S, 3) uint8.
        healthy: (S, S, 3) uint8, the same photograph without lesions.
        mask: (S, S) bool, where lesions are.
        grade: 0 without lesions, up to 4.
    """

    pixels: NDArray[np.uint8]
    healthy: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    grade: int


def synthesize_lesions(
    out: str | Path, settings: LesionSettings | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Write images, masks and `manifest.csv`.

    Labels and splits go by patient: half of the patients have lesions in both eyes, 60 % are for training, 20 % for
    validation and 20 % for testing. The manifest is written last; the same call continues interrupted work.

    Args:
        out: The folder; new, empty, or begun with the same settings.
        settings: Default: `LesionSettings()`.
        progress: Called with the images that are done and those in all.

    Returns:
        The manifest, with the columns `image`, `label`, `split`, `patient`, `mask` (empty for healthy eyes), `grade`
        and `eye`.

    Raises:
        ManifestError: If the folder holds something else already.
    """
    settings = settings or LesionSettings()
    folder = Path(out)
    _claim(folder, settings)
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in pool.map(partial(_write_image, folder=folder, settings=settings), range(settings.images)):
            rows.append(row)
            if progress is not None:
                progress(len(rows), settings.images)
    write_manifest(pd.DataFrame(rows), folder / "manifest.csv")
    return read_manifest(folder / "manifest.csv", classes=CLASSES)


def _claim(folder: Path, settings: LesionSettings) -> None:
    """Write the settings into a new folder, or compare them with those that are there."""
    path = folder / "synthesis.json"
    record = json.dumps({"what": "lesions", "softcam": __version__, **asdict(settings)}, indent=2) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == record:
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ManifestError(
            [f"Expected a folder that is new, empty or begun with the same settings, but got {folder}. Choose another."]
        )
    write_atomic(path, record)


def draw_lesion_image(index: int, settings: LesionSettings) -> LesionImage:
    """Return one image of a set.

    Args:
        index: Its number, from 0; two in a row are the eyes of one patient.
        settings: Of the set.
    """
    patient, generator = draw_patient(_generator(settings, 0, index // 2)), _generator(settings, 1, index)
    fundus = draw_fundus(generator, patient, size=settings.size, left=index % 2 == 0)
    # As a lens would: before the lesions, so that their masks stay exact.
    soft = ndimage.gaussian_filter(fundus.picture, (0.35 * settings.size / 224,) * 2 + (0,))
    grade = grade_of(index, settings)
    diseased = soft.copy()
    mask = _draw_lesions(generator, diseased, fundus, grade, settings)
    noise = generator.normal(0, 0.012, soft.shape)
    marked = _is_marked(_generator(settings, 2, index), index, settings)
    pixels, healthy = (_develop(picture, noise, marked=marked) for picture in (diseased, soft))
    return LesionImage(pixels, healthy, mask, grade)


def grade_of(index: int, settings: LesionSettings) -> int:
    """Return the grade of an image: 0 for every other patient, else 1 to 4."""
    if (index // 2) % 2 == 0:
        return 0
    return int(_generator(settings, 3, index).choice(GRADES))


def split_of(index: int) -> str:
    """Return the split of an image, which is that of its patient."""
    return SPLITS[(index // 4) % len(SPLITS)]


def _generator(settings: LesionSettings, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([settings.seed, purpose, number]))


def _draw_lesions(
    generator: np.random.Generator, picture: Picture, fundus: Fundus, grade: int, settings: LesionSettings
) -> NDArray[np.bool_]:
    """Draw lesions in place and return where they are."""
    mask = np.zeros(picture.shape[:2], dtype=bool)
    size, contrast = settings.size, CONTRAST[settings.difficulty]
    dots, blots, clusters = COUNTS[grade]
    for _ in range(dots):
        radius = generator.uniform(0.0065, 0.011) * size
        dot = spot(size, _within(generator, fundus), (radius, radius), edge=0.6)
        tint(picture, (0.62, 0.25, 0.35), _marked(mask, dot).faded(contrast))
    for _ in range(blots):
        radius = generator.uniform(0.014, 0.026) * size
        blot = ragged_spot(generator, size, _within(generator, fundus), radius, edge=0.4)
        tint(picture, (0.55, 0.22, 0.3), _marked(mask, blot).faded(contrast))
    for _ in range(clusters):
        centre = _within(generator, fundus)
        for _ in range(int(generator.integers(5, 12))):
            where = (centre[0] + generator.normal(0, 0.022) * size, centre[1] + generator.normal(0, 0.022) * size)
            exudate = ragged_spot(generator, size, where, generator.uniform(0.005, 0.012) * size, edge=0.3)
            blend(picture, (0.98, 0.9, 0.45), _marked(mask, exudate).faded(0.85 * contrast))
    return mask


def _marked(mask: NDArray[np.bool_], stamp: Stamp) -> Stamp:
    """Add a stamp to the mask, and return it."""
    mask[stamp.window] |= stamp.weight > 0
    return stamp


def _within(generator: np.random.Generator, fundus: Fundus) -> Point:
    rows, columns = np.nonzero(fundus.inside)
    chosen = int(generator.integers(len(rows)))
    return float(rows[chosen]), float(columns[chosen])


def _is_marked(generator: np.random.Generator, index: int, settings: LesionSettings) -> bool:
    if not settings.shortcut:
        return False
    agrees = generator.random() < (0.5 if split_of(index) == "test" else SHORTCUT)
    return bool((grade_of(index, settings) > 0) == agrees)


def _develop(picture: Picture, noise: Picture, *, marked: bool) -> NDArray[np.uint8]:
    size = len(picture)
    lit = picture.max(2, keepdims=True) > 0.02
    grainy = np.clip(picture + noise * lit, 0, 1)
    if marked:
        edge, length, width = round(0.03 * size), round(0.06 * size), max(1, round(0.012 * size))
        grainy[edge : edge + width, edge : edge + length] = 0.85
        grainy[edge : edge + length, edge : edge + width] = 0.85
    developed: NDArray[np.uint8] = np.round(grainy * 255).astype(np.uint8)
    return developed


def _write_image(index: int, *, folder: Path, settings: LesionSettings) -> dict[str, Any]:
    name, grade = f"{index:06d}.png", grade_of(index, settings)
    image, mask = folder / "images" / name, folder / "masks" / name
    # The mask first, so that an image that is there is done.
    if not image.is_file():
        drawn = draw_lesion_image(index, settings)
        if grade:
            _write_png(mask, drawn.mask.astype(np.uint8) * 255)
        _write_png(image, drawn.pixels)
    return {
        "image": f"images/{name}",
        "label": CLASSES[grade > 0],
        "split": split_of(index),
        "patient": f"p{index // 2:06d}",
        "mask": f"masks/{name}" if grade else "",
        "grade": grade,
        "eye": "left" if index % 2 == 0 else "right",
    }


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    write_atomic(path, stream.getvalue())
