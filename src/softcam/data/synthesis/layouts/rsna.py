"""The download of the RSNA Pneumonia Detection Challenge: radiographs as DICOM files, boxes, and three classes.

`stage_2_train_images/<patient>.dcm`, `stage_2_train_labels.csv` (a row per box) and `stage_2_detailed_class_info.csv`
(a row per row of the former).
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softcam.data.synthesis.abnormal import FINDINGS, add_density, draw_tubes, enlarge_heart
from softcam.data.synthesis.canvas import Plane
from softcam.data.synthesis.chest import Chest, draw_chest, draw_grain
from softcam.data.synthesis.consolidation import draw_consolidations
from softcam.data.synthesis.layouts.layout import IDENTITY, MOMENT, PATIENT, Layout, Rows, choose, pick, write_mask
from softcam.data.synthesis.layouts.secondary_capture import Header, encode_secondary_capture, load_pydicom
from softcam.data.synthesis.opacities import mark_side
from softcam.data.synthesis.ribcage import Patient, draw_patient
from softcam.data.synthesis.scene import CONTRAST, VISIBLE, SynthesisSettings
from softcam.data.synthesis.sets import create_generator
from softcam.files import write_atomic

LABELS, DETAILS = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"

NORMAL, OPACITY, OTHER = "Normal", "Lung Opacity", "No Lung Opacity / Not Normal"

CLASSES = {NORMAL: 8851, OPACITY: 6012, OTHER: 11821}
"""Class -> patients of the official training set."""

BOXES = {1: 2614, 2: 3266, 3: 119, 4: 13}
"""Boxes of a patient with opacities -> how many of these there are in the official table."""

LYING = {NORMAL: 0.15, OPACITY: 0.75, OTHER: 0.5}
"""Class -> share of radiographs that are taken from the front, since the patient cannot stand."""

SPACINGS = (0.139, 0.143, 0.168, 0.171, 0.194)
"""Millimetres from pixel to pixel of images of 1,024 pixels."""

FULL = 1024

FINEST = 320
"""Side in pixels of the largest drawing; larger radiographs are enlarged from it."""

NOISE = 0.006
"""Standard deviation of what each pixel has for itself, as a share of full brightness."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Case:
    """A patient with one radiograph.

    Args:
        label: One of `CLASSES`.
        opacities: How many.
        body: Of the patient.
        header: Of the file.
    """

    label: str
    opacities: int
    body: Patient
    header: Header


@dataclass(frozen=True, eq=False)
class Film:
    """A drawing before it is enlarged.

    Args:
        chest: Without opacities.
        opacities: Density of each, (S, S).
    """

    chest: Chest
    opacities: tuple[Plane, ...]

    def masks(self, size: int) -> list[NDArray[np.bool_]]:
        """Return where each opacity can be seen, (size, size)."""
        healthy = self.chest.render(np.zeros_like(self.chest.density))
        seen = (self.chest.render(opacity) - healthy >= VISIBLE for opacity in self.opacities)
        return [np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)) for mask in seen]


def write_radiograph(number: int, folder: Path, settings: SynthesisSettings) -> Rows:
    """Write the radiograph of a number, and return its rows of both tables."""
    case = case_of(number, settings)
    name, boxes = case.header.patient, []
    path = folder / "stage_2_train_images" / f"{name}.dcm"
    if case.label == OPACITY or not path.is_file():
        load_pydicom()  # Whether it is there is known before anything is drawn.
        film = draw_film(number, case, settings)
        masks = film.masks(settings.size)
        boxes = [box_around(mask) for mask in masks]
        # The mask first, so that an image that is there is done.
        if not path.is_file():
            if masks:
                write_mask(folder, name, np.any(masks, 0))
            write_atomic(path, encode_secondary_capture(develop(number, film, settings), case.header))
    rows: list[tuple[object, ...]] = [(name, *box, 1) for box in boxes]
    rows = rows or [(name, None, None, None, None, 0)]
    return {LABELS: rows, DETAILS: [(name, case.label)] * len(rows)}


def case_of(number: int, settings: SynthesisSettings) -> Case:
    """Return the patient of a number."""
    generator = create_generator(settings, IDENTITY, number)
    name, *uids = (uuid.UUID(bytes=generator.bytes(16), version=4) for _ in range(4))
    label = choose(CLASSES, settings, number)
    body = draw_patient(create_generator(settings, PATIENT, number))
    header = Header(
        str(name),
        "F" if body.breasts else "M",
        int(np.clip(generator.normal(47, 17), 2, 92)),
        "AP" if generator.random() < LYING[label] else "PA",
        round(float(generator.choice(SPACINGS)) * FULL / settings.size, 6),
        *(f"2.25.{uid.int}" for uid in uids),
    )
    return Case(label, pick(BOXES, float(generator.random())) if label == OPACITY else 0, body, header)


def draw_film(number: int, case: Case, settings: SynthesisSettings) -> Film:
    """Return the drawing of a patient."""
    size = min(settings.size, FINEST)
    scan, finding, other, _ = create_generator(settings, MOMENT, number).spawn(4)
    body = case.body
    if case.header.view == "AP":
        # The heart is farther from the detector.
        body = dataclasses.replace(body, heart=1.1 * body.heart)
    names = _choose_abnormal(other) if case.label == OTHER else ()
    if "heart" in names:
        body = enlarge_heart(other, body)
    chest = draw_chest(scan, body, size)
    for name in names:
        if name in FINDINGS:
            chest = add_density(chest, FINDINGS[name](other, chest))
    if case.header.view == "AP" and other.random() < 0.35:
        chest = add_density(chest, draw_tubes(other, chest))
    if other.random() < 0.6:
        mark_side(chest.density)
    drawn = draw_consolidations(finding, chest, case.opacities) if case.opacities else []
    return Film(chest, tuple(CONTRAST[settings.difficulty] * opacity for opacity in drawn))


def develop(number: int, film: Film, settings: SynthesisSettings) -> NDArray[np.uint8]:
    """Return a drawing's picture in its full size, (S, S), with its grain."""
    grain = create_generator(settings, MOMENT, number).spawn(4)[3]
    opacity = np.max(film.opacities, 0) if film.opacities else np.zeros_like(film.chest.density)
    picture = film.chest.render(opacity)
    coarse = Image.fromarray((picture + draw_grain(grain, picture)).astype(np.float32))
    whole = np.asarray(coarse.resize((settings.size, settings.size), Image.Resampling.BICUBIC))
    fine = NOISE * grain.standard_normal(whole.shape, dtype=np.float32)
    result: NDArray[np.uint8] = np.round(255 * np.clip(whole + fine, 0, 1)).astype(np.uint8)
    return result


def box_around(mask: NDArray[np.bool_]) -> Box:
    """Return left, top, width and height in pixels of the box around a mask."""
    rows, columns = (np.nonzero(mask.any(axis))[0] for axis in (1, 0))
    width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return float(columns[0]), float(rows[0]), float(width), float(height)


def _choose_abnormal(generator: np.random.Generator) -> tuple[str, ...]:
    names = ("heart", *FINDINGS)
    count = 1 + int(generator.random() < 0.4)
    return tuple(str(name) for name in generator.choice(names, count, replace=False, p=(0.35, 0.3, 0.2, 0.08, 0.07)))


RSNA = Layout(
    name="rsna",
    title="the download of the RSNA Pneumonia Detection Challenge",
    size=FULL,
    tables={LABELS: ("patientId", "x", "y", "width", "height", "Target"), DETAILS: ("patientId", "class")},
    write=write_radiograph,
)
