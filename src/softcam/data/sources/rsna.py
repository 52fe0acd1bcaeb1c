"""RSNA Pneumonia Detection Challenge: radiographs of the chest as DICOM, with boxes around opacities.

The download holds `stage_2_train_images/<patientId>.dcm` (1024 x 1024 pixels, one per patient),
`stage_2_train_labels.csv` (patientId, x, y, width, height, Target; a row for each box, in pixels of the radiograph) and
`stage_2_detailed_class_info.csv` (patientId, class), which tells radiographs that are not normal but show no opacity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from softcam.data import pictures
from softcam.data.archives import Member, read_table
from softcam.data.downloads import (
    Download,
    Plan,
    PreparationSettings,
    Product,
    Row,
    index_images,
    match_images,
    read_columns,
    read_splits,
    split_rows,
)
from softcam.errors import ImageError, ManifestError
from softcam.imaging import decode_image

LABELS: Mapping[str, tuple[str, ...]] = {
    "pneumonia": ("normal", "pneumonia"),
    "pneumonia-all": ("other", "pneumonia"),
}
"""`pneumonia` leaves out what is not normal but shows no opacity, as the paper does; `pneumonia-all` calls it other."""

LABEL_TABLE = "stage_2_train_labels.csv"
DETAIL_TABLE = "stage_2_detailed_class_info.csv"
LEFT_OUT = "No Lung Opacity / Not Normal"
_MISSING_DETAIL = (
    f"Expected {DETAIL_TABLE} to say of each radiograph without opacity whether it is normal, but {{}} are not in it. "
    "Download it as well, or prepare with the labels pneumonia-all."
)
SPLIT_FILES = {split: (f"{split}.csv",) for split in ("train", "val", "test")}


def plan(members: Sequence[Member], settings: PreparationSettings) -> Plan:
    """Match radiographs, labels and boxes; see `Download.plan`.

    Raises:
        ManifestError: If a table is missing or wrong, tables contradict each other, or no image is there.
    """
    images = index_images(members, _name)
    labelled = read_labels(read_table(members, LABEL_TABLE))
    details = _read_details(read_table(members, DETAIL_TABLE))
    bare = [(images[name].name, f"no row in {LABEL_TABLE}") for name in sorted(set(images) - set(labelled))]
    if settings.splits is not None:
        rows, notes = _follow_splits(settings.splits, settings.labels or "pneumonia", labelled, details), {}
    else:
        kept = _choose(labelled, details, settings)
        rows = dict(zip(kept, split_rows(list(kept.values()), settings), strict=True))
        notes = {"images that are not normal but show no opacity": len(labelled) - len(kept)}
    orders, missing = match_images(rows.items(), images, members)
    return Plan(orders, (*missing, *bare), notes)


def read_labels(content: bytes | None) -> dict[str, Row]:
    """Return `boxes` (x, y, width, height in pixels of the radiograph) and `target` (0 or 1) by patient.

    Args:
        content: Of `stage_2_train_labels.csv`.

    Raises:
        ManifestError: If it is missing, has other columns, or a row contradicts itself or another one.
    """
    columns = ["patientId", "x", "y", "width", "height", "Target"]
    table = read_columns(content, LABEL_TABLE, columns)
    found: dict[str, Row] = {}
    problems = []
    for row, values in enumerate(table[columns].itertuples(index=False), 2):
        name, *numbers, target = values
        box = _read_box(numbers)
        entry = found.setdefault(name, {"boxes": [], "target": target})
        fits = name and target in ("0", "1") and target == entry["target"] and (box is None) == (target == "0")
        if not fits or (target == "0" and len(numbers) != numbers.count("")):
            problems.append(f"{LABEL_TABLE}, row {row}: expected a box where Target is 1 and none where it is 0.")
        elif box is not None:
            entry["boxes"].append(box)
    if problems:
        raise ManifestError(problems)
    return {name: {"boxes": entry["boxes"], "target": int(entry["target"])} for name, entry in found.items()}


def convert(stem: str, contents: Sequence[bytes], size: int | None) -> Product:
    """Return the radiograph with its shorter side resampled; see `Download.convert`."""
    image = decode_image(contents[0])
    pixels = image.pixels if size is None else pictures.fit_shorter(image.pixels, size)
    facts = {"width": image.width, "height": image.height, "written": [pixels.shape[1], pixels.shape[0]]}
    return Product({f"images/{stem}.png": pictures.encode(pixels)}, facts)


def complete(row: Row, facts: Row) -> Row:
    """Return the manifest's columns, with boxes in pixels of the written image; see `Download.complete`.

    Raises:
        ImageError: If a box reaches beyond the radiograph.
    """
    width, height = facts["width"], facts["height"]
    across, down = facts["written"][0] / width, facts["written"][1] / height
    boxes = []
    for x, y, wide, high in row["boxes"]:
        if x + wide > width or y + high > height:
            raise ImageError(f"a box reaches beyond the {width}x{height} pixels of its image")
        boxes.append([round(value, 4) for value in (x * across, y * down, wide * across, high * down)])
    return row | {"boxes": boxes, "original_width": width, "original_height": height}


def _name(member: Member) -> str | None:
    is_test = any("test" in part.lower() for part in member.parts[:-1])
    return member.stem if member.suffix == ".dcm" and not is_test else None


def _read_box(numbers: Sequence[str]) -> list[float] | None:
    try:
        box = [float(number) for number in numbers]
    except ValueError:
        return None
    x, y, width, height = box
    fits = all(map(math.isfinite, box)) and x >= 0 and y >= 0 and width > 0 and height > 0
    return box if fits else None


def _read_details(content: bytes | None) -> dict[str, str]:
    if content is None:
        return {}
    table = read_columns(content, DETAIL_TABLE, ["patientId", "class"])
    pairs = table[["patientId", "class"]].drop_duplicates()
    repeated = pairs["patientId"].duplicated()
    if repeated.any():
        raise ManifestError(
            [f"Expected {DETAIL_TABLE} to give each patient one class, but {int(repeated.sum())} have several."]
        )
    return dict(zip(pairs["patientId"], pairs["class"], strict=True))


def _choose(labelled: Mapping[str, Row], details: Mapping[str, str], settings: PreparationSettings) -> dict[str, Row]:
    kind = settings.labels or "pneumonia"
    if kind == "pneumonia":
        unknown = sum(name not in details for name, entry in labelled.items() if not entry["target"])
        if unknown:
            raise ManifestError([_MISSING_DETAIL.format(unknown)])
    chosen = {name: entry for name, entry in labelled.items() if kind != "pneumonia" or details.get(name) != LEFT_OUT}
    return {name: _describe(name, entry, details, kind) for name, entry in chosen.items()}


def _follow_splits(splits: Path, kind: str, labelled: Mapping[str, Row], details: Mapping[str, str]) -> dict[str, Row]:
    table = read_splits(splits, SPLIT_FILES, inside="RSNA", key="filename", columns=["bin_target"])
    names = table["filename"].str.rsplit(".", n=1).str[0]
    _check_targets(names, table["bin_target"], labelled)
    pairs = zip(names, table["split"], strict=True)
    return {name: _describe(name, labelled[name], details, kind) | {"split": split} for name, split in pairs}


def _check_targets(names: pd.Series[str], targets: pd.Series[str], labelled: Mapping[str, Row]) -> None:
    pairs = list(zip(names, targets, strict=True))
    unknown = [name for name, _ in pairs if name not in labelled]
    other = [name for name, target in pairs if name in labelled and str(labelled[name]["target"]) != target]
    for found, what in ((unknown, "to have a row for each image of the splits"), (other, "to agree with the splits")):
        if found:
            raise ManifestError(
                [f"Expected {LABEL_TABLE} {what}, but not so for {len(found)}, {found[0]!r} first. Check both."]
            )


def _describe(name: str, entry: Row, details: Mapping[str, str], kind: str) -> Row:
    label = LABELS[kind][entry["target"]]
    return {"label": label, "patient": name, "boxes": entry["boxes"], "detail": details.get(name, "")}


RSNA = Download("rsna", "radiographs of the chest with boxes around opacities", LABELS, 512, plan, convert, complete)
