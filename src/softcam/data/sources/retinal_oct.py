"""Retinal OCT of Kermany et al., version 3: B-scans in the tree `train|test/CLASS/CLASS-<patient>-<n>.jpeg`.

The archive also holds radiographs of the chest, which are passed over. The official training folder has scans of
patients who are in the official test folder as well; without published splits these are left out of training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from softcam.data import pictures
from softcam.data.archives import Member
from softcam.data.downloads import (
    Download,
    Plan,
    PreparationSettings,
    Product,
    Row,
    describe_absence,
    index_images,
    match_images,
    read_splits,
)
from softcam.data.splits import assign_splits
from softcam.data.tables import SPLITS
from softcam.errors import ManifestError
from softcam.imaging import decode_image

LABELS: Mapping[str, tuple[str, ...]] = {"drusen": ("normal", "drusen"), "classes": ("normal", "drusen", "dme", "cnv")}
"""Classes in the order of the published levels."""

VALIDATION = 0.1
"""Share of the training scans that are for validation where no splits are given."""

_NAME = re.compile(r"(CNV|DME|DRUSEN|NORMAL)-(\d+)-(\d+)")
_FOLDERS = ("train", "test")


def plan(members: Sequence[Member], settings: PreparationSettings) -> Plan:
    """Match scans and classes, which are in their names; see `Download.plan`.

    Raises:
        ManifestError: If a table is missing or wrong, or no scan is there.
    """
    images = index_images(members, _name)
    classes = LABELS[settings.labels or "drusen"]
    if settings.splits is not None:
        orders, missing = match_images(_read_rows(settings.splits, classes).items(), images, members)
        return Plan(orders, missing, {"unused images": len(images) - len(orders)})
    if not images:
        raise describe_absence("scans such as train/NORMAL/NORMAL-<patient>-<n>.jpeg", members)
    rows, notes = _split({name: _describe(name) for name in images}, classes, settings)
    orders, _ = match_images(rows.items(), images, members)
    return Plan(orders, (), notes)


def convert(stem: str, contents: Sequence[bytes], size: int | None) -> Product:
    """Return the scan as it is, or smaller as PNG if a size is asked for; see `Download.convert`."""
    image = decode_image(contents[0])
    facts = {"width": image.width, "height": image.height}
    if size is None:
        return Product({f"images/{stem}.{image.format.lower()}": contents[0]}, facts)
    return Product({f"images/{stem}.png": pictures.encode(pictures.fit_shorter(image.pixels, size))}, facts)


def complete(row: Row, facts: Row) -> Row:
    """Return the manifest's columns; see `Download.complete`."""
    return row | facts


def _name(member: Member) -> str | None:
    """Return folder, class and name without suffix, by which the published tables call a scan."""
    parts = member.parts
    if len(parts) < 3 or "chest_xray" in parts or member.suffix not in {".jpeg", ".jpg", ".png"}:
        return None
    found = _NAME.fullmatch(member.stem)
    is_scan = found is not None and found[1] == parts[-2] and parts[-3] in _FOLDERS
    return "/".join((*parts[-3:-1], member.stem)) if is_scan else None


def _describe(name: str) -> Row:
    folder, title, stem = name.split("/")
    return {"label": title.lower(), "patient": stem.split("-")[1], "folder": folder}


def _split(rows: dict[str, Row], classes: Sequence[str], settings: PreparationSettings) -> tuple[dict[str, Row], Row]:
    """Keep the official test folder, leave its patients out of the training folder and take validation from there."""
    tested = {row["patient"] for row in rows.values() if row["folder"] == "test"}
    wanted = {name: row for name, row in rows.items() if row["label"] in classes}
    pool = {name: row for name, row in wanted.items() if row["folder"] == "train" and row["patient"] not in tested}
    test = {name: row | {"split": "test"} for name, row in wanted.items() if row["folder"] == "test"}
    notes = {
        "training images left out because their patient is in the test folder": len(wanted) - len(pool) - len(test),
        "images of other classes": len(rows) - len(wanted),
    }
    if not pool:
        return test, notes
    table = pd.DataFrame([{"label": row["label"], "patient": row["patient"]} for row in pool.values()])
    fractions = {"train": 1 - VALIDATION, "val": VALIDATION}
    splits = assign_splits(table, fractions, seed=settings.seed, stratify=["label"], group="patient")
    drawn = {name: row | {"split": split} for (name, row), split in zip(pool.items(), splits, strict=True)}
    return drawn | test, notes


def _read_rows(splits: Path, classes: Sequence[str]) -> dict[str, Row]:
    is_binary = len(classes) == 2
    column = "drusen" if is_binary else "level"
    files = {split: (f"{split}.csv" if is_binary else f"multiclass/{split}.csv",) for split in SPLITS}
    table = read_splits(splits, files, inside="Retinal_OCT", key="filename", columns=[column])
    rows = {}
    for filename, level, split in zip(table["filename"], table[column], table["split"], strict=True):
        name = filename.rsplit(".", 1)[0]
        row = _describe(name) if name.count("/") == 2 and "-" in name else {"label": ""}
        if not level.isdigit() or int(level) >= len(classes) or row["label"] != classes[int(level)]:
            raise ManifestError(
                [f"Expected the splits to give each scan the class of its folder, but got {filename!r} as {level!r}."]
            )
        rows[name] = row | {"split": split}
    return rows


RETINAL_OCT = Download("retinal-oct", "B-scans of the retina in four classes", LABELS, None, plan, convert, complete)
