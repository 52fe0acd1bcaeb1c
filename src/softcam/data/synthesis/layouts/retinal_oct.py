"""The download of Kermany's retinal OCT: B-scans of four classes, several of a patient.

`OCT2017/train/<CLASS>/<CLASS>-<patient>-<n>.jpeg` and `OCT2017/test/...`, 8-bit grey; the folders are the labels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softcam.data.synthesis.fluid import DRAWN
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
from softcam.data.synthesis.retina import draw_patient, draw_retina, draw_speckle
from softcam.data.synthesis.scene import CONTRAST, SynthesisSettings
from softcam.data.synthesis.sets import create_generator
from softcam.files import write_atomic

CLASSES = {"CNV": 37206, "DME": 11349, "DRUSEN": 8617, "NORMAL": 51140}
"""Class -> images of the official training set, third version."""

IMAGES_OF = (3, 2, 5, 2, 4)
"""Images of five patients in turn, of whom the second is for testing."""

TEST = 1

WIDTHS = {512: 0.6, 768: 0.4}
"""Width in pixels where the height is 496 -> how frequent it is."""

HEIGHT = 496


@dataclass(frozen=True)
class Place:
    """Where an image of a number lies.

    Args:
        patient: Number of the patient, from 0.
        count: Number of the image among the patient's, from 1.
        split: `train` or `test`.
        label: The class.
    """

    patient: int
    count: int
    split: str
    label: str


def write_scan(number: int, folder: Path, settings: SynthesisSettings) -> Rows:
    """Write the B-scan of a number."""
    place = place_of(number, settings)
    name = f"{place.label}-{_id_of(place.patient, settings)}-{place.count}"
    path = folder / "OCT2017" / place.split / place.label / f"{name}.jpeg"
    # The mask first, so that an image that is there is done.
    if not path.is_file():
        picture, mask = paint_scan(number, place, settings)
        if place.label != "NORMAL":
            write_mask(folder, name, mask)
        write_atomic(path, encode_jpeg(picture))
    return {}


def place_of(number: int, settings: SynthesisSettings) -> Place:
    """Return patient, split and class of an image: classes are equally frequent in the test set, as they were."""
    turn, rest = divmod(number, sum(IMAGES_OF))
    ends = np.cumsum(IMAGES_OF)
    which = int(np.searchsorted(ends, rest, side="right"))
    patient, count = turn * len(IMAGES_OF) + which, int(rest - (ends[which] - IMAGES_OF[which]) + 1)
    if which == TEST:
        return Place(patient, count, "test", list(CLASSES)[turn % len(CLASSES)])
    return Place(patient, count, "train", choose(CLASSES, settings, turn * 4 + which - (which > TEST)))


def paint_scan(number: int, place: Place, settings: SynthesisSettings) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return picture and mask of a B-scan, (H, W)."""
    size, contrast = settings.size, CONTRAST[settings.difficulty]
    scan, finding, grain = create_generator(settings, MOMENT, number).spawn(3)
    look = create_generator(settings, PATIENT, place.patient)
    # Scanners take in about two millimetres of depth, of which the retina is a quarter.
    patient = dataclasses.replace(draw_patient(look), retina=look.uniform(0.21, 0.27))
    grade = int(create_generator(settings, GRADE, number).integers(1, 5))
    retina = draw_retina(scan, patient, size=size, left=bool(look.integers(2)))
    picture, mask = DRAWN[place.label](finding, retina, grade, contrast).render(retina)
    picture = np.clip(picture + draw_speckle(grain, patient, size), 0, 1)
    frame = create_generator(settings, FRAME, number)
    width = round(pick(WIDTHS, float(frame.random())) / HEIGHT * size)
    return _register(frame, _widen(picture, width), _widen(mask.astype(np.float64), width))


def _widen(plane: NDArray[np.float64], width: int) -> NDArray[np.uint8]:
    drawn = Image.fromarray(np.round(plane * 255).astype(np.uint8))
    return np.asarray(drawn.resize((width, drawn.height), Image.Resampling.BILINEAR))


def _register(
    frame: np.random.Generator, picture: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return both as a third of the official images are: levelled by the scanner, white where nothing was taken."""
    height, width = picture.shape
    tilted, shift, slope = frame.random() < 0.35, frame.uniform(-0.08, 0.08), frame.uniform(-0.2, 0.2)
    offset = np.round(tilted * (shift * height + slope * (np.arange(width) - width / 2) * height / width)).astype(int)
    rows = np.arange(height)[:, None] + offset
    taken, rows = (rows >= 0) & (rows < height), np.clip(rows, 0, height - 1)
    moved, finding = (np.take_along_axis(plane, rows, axis=0) for plane in (picture, mask))
    return np.where(taken, moved, np.uint8(255)), taken & (finding >= 128)


def _id_of(patient: int, settings: SynthesisSettings) -> int:
    return 1_000_000 + 89 * patient + int(create_generator(settings, IDENTITY, patient).integers(89))


RETINAL_OCT = Layout(
    name="retinal-oct",
    title="the download of Kermany's retinal OCT",
    size=HEIGHT,
    tables={},
    write=write_scan,
)
