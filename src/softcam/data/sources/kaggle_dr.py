"""Kaggle Diabetic Retinopathy Detection: fundus photographs of both eyes, graded 0 to 4 by one clinician.

The download holds `trainLabels.csv` (image, level) and JPEG files `<patient>_left.jpeg`, `<patient>_right.jpeg` of many
sizes. The labels of the official test images were published later as `retinopathy_solution.csv`; the paper's splits
draw on both, so that they need the images of `train` and of `test`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

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
from softcam.data.fundus import find_square
from softcam.errors import ManifestError
from softcam.imaging import decode_image

LABELS: Mapping[str, tuple[str, ...]] = {
    "onset1": ("healthy", "referable"),
    "onset2": ("healthy", "referable"),
    "grades": ("0", "1", "2", "3", "4"),
}
"""`onset1` calls grade 1 and above referable, as the paper does; `onset2` grade 2 and above."""

TABLES = ("trainLabels.csv", "retinopathy_solution.csv")
SPLIT_FILES = {
    "train": ("kaggle_gradable_train_reduce.csv", "kaggle_gradable_train.csv"),
    "val": ("kaggle_gradable_val.csv",),
    "test": ("kaggle_gradable_test.csv",),
}
SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
_NAME = re.compile(r"(\d+)_(left|right)")


def plan(members: Sequence[Member], settings: PreparationSettings) -> Plan:
    """Match photographs and grades; see `Download.plan`.

    Raises:
        ManifestError: If a table is missing or wrong, tables contradict each other, or no image is there.
    """
    images = index_images(members, _name)
    levels = _read_levels(members, is_needed=settings.splits is None)
    rows = _read_rows(settings, levels)
    if settings.splits is None:
        rows = dict(zip(rows, split_rows(list(rows.values()), settings), strict=True))
    orders, missing = match_images(rows.items(), images, members)
    official = {name for name, member in images.items() if "test" in member.parts[:-1]}
    bare = [] if settings.splits is not None else sorted(set(images) - set(rows) - official)
    unlabelled = [(images[name].name, "no grade in trainLabels.csv") for name in bare]
    return Plan(orders, (*missing, *unlabelled), {"unused images": len(set(images) - set(rows)) - len(bare)})


def convert(stem: str, contents: Sequence[bytes], size: int | None) -> Product:
    """Return the square around the fundus, resampled; see `Download.convert`.

    What lies beyond the photograph is black. PNG, since a second JPEG compression would leave its blocks beside
    lesions of a few pixels.
    """
    pixels = decode_image(contents[0]).to_rgb8()
    square = find_square(pixels)
    cut = pictures.cut(pixels, square.corners)
    side = size or square.side
    written = pictures.encode(pictures.resample(cut, side, side))
    return Product({f"images/{stem}.png": written}, square.columns)


def complete(row: Row, facts: Row) -> Row:
    """Return the manifest's columns; see `Download.complete`."""
    return row | facts


def _name(member: Member) -> str | None:
    return member.stem if member.suffix in SUFFIXES and _NAME.fullmatch(member.stem) else None


def _read_levels(members: Sequence[Member], *, is_needed: bool) -> dict[str, str]:
    """Return the grade of each image that the official tables name."""
    levels: dict[str, str] = {}
    for name in TABLES:
        content = read_table(members, name)
        if content is None and (not is_needed or name != TABLES[0]):
            continue
        table = read_columns(content, name, ["image", "level"])
        _check_levels(table["image"].tolist(), table["level"].tolist(), name)
        levels |= dict(zip(table["image"], table["level"], strict=True))
    return levels


def _check_levels(names: Sequence[str], levels: Sequence[str], table: str) -> None:
    problems = [
        f"{table}, row {row}: expected an image such as 10_left and a level from 0 to 4, but got {name!r}, {level!r}."
        for row, (name, level) in enumerate(zip(names, levels, strict=True), start=2)
        if not _NAME.fullmatch(name) or level not in LABELS["grades"]
    ]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        problems.append(f"{table}: expected each image once, but got {twice[0]!r} and {len(twice) - 1} more twice.")
    if problems:
        raise ManifestError(problems)


def _read_rows(settings: PreparationSettings, levels: Mapping[str, str]) -> dict[str, Row]:
    if settings.splits is None:
        return {name: _describe(name, level, settings) for name, level in levels.items()}
    table = read_splits(settings.splits, SPLIT_FILES, inside="kaggle", key="image", columns=["level"])
    _check_levels(table["image"].tolist(), table["level"].tolist(), "the splits")
    other = [
        name for name, level in zip(table["image"], table["level"], strict=True) if levels.get(name, level) != level
    ]
    if other:
        raise ManifestError(
            [f"Expected the splits to have the official grades, but {len(other)} differ, {other[0]!r} first."]
        )
    triples = zip(table["image"], table["level"], table["split"], strict=True)
    return {name: _describe(name, level, settings) | {"split": split} for name, level, split in triples}


def _describe(name: str, level: str, settings: PreparationSettings) -> Row:
    patient, eye = name.split("_")
    kind = settings.labels or "onset1"
    label = level if kind == "grades" else LABELS[kind][int(level) >= (1 if kind == "onset1" else 2)]
    return {"label": label, "patient": patient, "eye": eye, "level": level}


KAGGLE_DR = Download(
    "kaggle-dr", "fundus photographs, graded for diabetic retinopathy", LABELS, 512, plan, convert, complete
)
