"""The download of Kaggle's Diabetic Retinopathy Detection: photographs of both eyes in a wide black frame, five grades.

`trainLabels.csv` (`image,level`) and `train/<patient>_left.jpeg`, `train/<patient>_right.jpeg`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softcam.data.synthesis.fundus import FIELD
from softcam.data.synthesis.layouts.layout import (
    FRAME,
    GRADE,
    IDENTITY,
    MOMENT,
    PATIENT,
    Layout,
    Rows,
    choose,
    encode_jpeg,
    pick,
    write_mask,
)
from softcam.data.synthesis.lesions import paint_lesions
from softcam.data.synthesis.scene import CONTRAST, Order, Painting, SynthesisSettings
from softcam.data.synthesis.sets import create_generator
from softcam.files import write_atomic

Pixel = TypeVar("Pixel", np.uint8, np.bool_)

TABLE = "trainLabels.csv"

LEVELS = {0: 25810, 1: 2443, 2: 5292, 3: 873, 4: 708}
"""Grade -> images of the official training set."""

SIDES = ("left", "right")

ALIKE = 0.87
"""Share of patients whose eyes are drawn with one grade for both."""

FINEST = 640
"""Side in pixels of the largest drawing; larger photographs are enlarged from it, as theirs are hardly sharper."""


@dataclass(frozen=True)
class Camera:
    """How a camera frames the eye.

    Args:
        aspect: Width of the image divided by its height.
        field: Diameter of the field of view divided by the height; above 1 it is cut off at top and bottom.
    """

    aspect: float
    field: float


CAMERAS = (Camera(4 / 3, 0.98), Camera(3 / 2, 0.94), Camera(4 / 3, 1.15), Camera(3 / 2, 1.08))


def write_photograph(number: int, folder: Path, settings: SynthesisSettings) -> Rows:
    """Write the photograph of a number, two in a row of one patient, and return its row of the table."""
    name, level = name_of(number, settings), level_of(number, settings)
    path = folder / "train" / f"{name}.jpeg"
    # The mask first, so that an image that is there is done.
    if not path.is_file():
        camera = CAMERAS[int(create_generator(settings, FRAME, number // 2).integers(len(CAMERAS)))]
        painting = _paint(number, camera, level, settings)
        if level:
            write_mask(folder, name, frame(painting.mask, camera, settings.size))
        pixels = frame(np.round(painting.picture * 255).astype(np.uint8), camera, settings.size)
        grain = create_generator(settings, FRAME, number).integers(0, 4, pixels.shape, np.uint8)
        write_atomic(path, encode_jpeg(np.maximum(pixels, grain)))
    return {TABLE: [(name, level)]}


def name_of(number: int, settings: SynthesisSettings) -> str:
    """Return a name such as `10_left`; as in the official set, some patients' numbers are missing."""
    patient, side = divmod(number, 2)
    skipped = int(create_generator(settings, IDENTITY, patient).integers(2))
    return f"{10 + 2 * patient + skipped}_{SIDES[side]}"


def level_of(number: int, settings: SynthesisSettings) -> int:
    """Return the grade of an eye, 0 to 4, as frequent as in the official set."""
    patient, right = divmod(number, 2)
    same, at = create_generator(settings, GRADE, patient).random(2)
    return pick(LEVELS, float(at)) if right and same >= ALIKE else choose(LEVELS, settings, patient)


def frame(drawn: NDArray[Pixel], camera: Camera, height: int) -> NDArray[Pixel]:
    """Return a square drawing of an eye or its mask as a camera frames it, (height, aspect * height)."""
    side, image = _side(camera, height), Image.fromarray(drawn)
    resampling = Image.Resampling.NEAREST if image.mode == "1" else Image.Resampling.BICUBIC
    whole = Image.new(image.mode, (round(camera.aspect * height), height))
    whole.paste(image.resize((side, side), resampling), ((whole.width - side) // 2, (height - side) // 2))
    return np.asarray(whole)


def _side(camera: Camera, height: int) -> int:
    return round(camera.field * height / (2 * FIELD))


def _paint(number: int, camera: Camera, level: int, settings: SynthesisSettings) -> Painting:
    size = min(_side(camera, settings.size), FINEST)
    patient = create_generator(settings, PATIENT, number // 2)
    moment = create_generator(settings, MOMENT, number)
    return paint_lesions(Order(size, level, CONTRAST[settings.difficulty], number % 2 == 0, patient, moment))


KAGGLE_DR = Layout(
    name="kaggle-dr",
    title="the download of Kaggle's Diabetic Retinopathy Detection",
    size=900,
    tables={TABLE: ("image", "level")},
    write=write_photograph,
)
