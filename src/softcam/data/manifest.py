"""Manifests: checked tables of images, labels, splits and patients that all data becomes before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from softcam.data.boxes import parse_boxes
from softcam.data.checks import list_image_problems, list_problems
from softcam.data.labels import find_class, infer_classes, read_whole
from softcam.data.paths import normalize_path
from softcam.data.tables import Draft, ImageTable, read_table
from softcam.errors import ManifestError
from softcam.files import atomic_path, digest_file

Task: TypeAlias = Literal["multiclass", "multilabel"]


@dataclass(frozen=True, eq=False)
class Manifest(ImageTable):
    """A table of images that has passed its checks.

    Cells are text as they were read, `""` where empty, except for the labels: `label` holds class names, and in a
    multi-label table each class has a column of 0 and 1. Columns that softcam does not know are kept.

    Attributes:
        classes: Class names in the order of the logits.
        task: `multiclass` (one class per image) or `multilabel` (any number of classes per image).
    """

    classes: tuple[str, ...]
    task: Task

    @property
    def paths(self) -> list[Path]:
        """Where the images are."""
        return [self.root / image for image in self.table["image"]]

    @property
    def targets(self) -> NDArray[Any]:
        """Class indices, shape (N,), int64; or for a multi-label table 0 and 1, shape (N, K), float32."""
        if self.task == "multilabel":
            return self.table[list(self.classes)].to_numpy(dtype=np.float32, copy=True)
        index = {name: position for position, name in enumerate(self.classes)}
        return self.table["label"].map(index).to_numpy(dtype=np.int64, copy=True)

    @property
    def patients(self) -> NDArray[np.object_] | None:
        """Patient of each image, shape (N,), text; None where the table names none."""
        return self.table["patient"].to_numpy(dtype=object, copy=True) if "patient" in self.table else None

    @property
    def boxes(self) -> list[NDArray[np.float64]]:
        """Boxes of each image, shape (B, 4): x, y, width, height in original pixels; B is 0 where there are none."""
        return [parse_boxes(self.cell(position, "boxes")) for position in range(len(self))]

    @property
    def masks(self) -> list[Path | None]:
        """Where the mask of each image is; None where it has none."""
        masks = [self.cell(position, "mask") for position in range(len(self))]
        return [self.root / mask if mask else None for mask in masks]

    def subset(self, split: str) -> Manifest:
        """Return the rows of one split, in their order.

        Args:
            split: `train`, `val` or `test`.

        Raises:
            ManifestError: If the table has no splits or none of this name.
        """
        found = list(dict.fromkeys(self.table["split"])) if "split" in self.table else []
        if split not in found:
            raise ManifestError([f"Expected images with split {split!r}, but got splits {found}. See assign_splits."])
        return self.take(np.flatnonzero(self.table["split"] == split))

    def take(self, positions: NDArray[np.int64]) -> Manifest:
        """Return some rows, in the order that is asked for.

        Args:
            positions: (N,) from 0.
        """
        rows = None if self.rows is None else self.rows[positions]
        return replace(self, table=self.table.iloc[positions].reset_index(drop=True), rows=rows)

    def digest(self, files: Sequence[str] | None = None) -> str:
        """Return a SHA-256 over each row's path, labels, split and patient and over the bytes of its image.

        It does not depend on the manifest's place or further columns, and changes with the order of rows.

        Args:
            files: (N,) SHA-256 of each image's bytes, where they are known; by default every image is read.

        Raises:
            OSError: If an image has gone.
        """
        total = hashlib.sha256()
        for position, path in enumerate(self.paths):
            known = [self.cell(position, column) for column in ("image", "split", "patient")]
            line = [*known, self._list_labels(position), digest_file(path) if files is None else files[position]]
            total.update(json.dumps(line).encode())
        return total.hexdigest()

    def check_images(self) -> tuple[str, ...]:
        """Open every image and mask and return one sentence for each that is unfit; empty if all are fit."""
        return tuple(list_image_problems(self))

    def _list_labels(self, position: int) -> list[str]:
        if self.task == "multiclass":
            return [self.cell(position, "label")]
        return sorted(name for name in self.classes if self.table[name].iloc[position])


def read_manifest(path: str | Path, *, classes: Sequence[str] | None = None) -> Manifest:
    """Read and check a CSV or Parquet table, a folder that holds `manifest.csv`, or a folder per class.

    Columns: `image` (path relative to the table), `label` (class name, or whole number from 0) or one 0/1 column per
    name in `classes`, and optionally `split`, `patient`, `boxes` (JSON list of [x, y, width, height] in original
    pixels), `mask` (path). In a tree of folders, `train`, `val` and `test` may come above the class folders.

    Args:
        path: The table or folder.
        classes: Class names in the order of the logits. None takes numbers in order and names alphabetically.

    Raises:
        ManifestError: If anything is wrong, with every problem and its row; row 1 is the header.
        ValueError: If `classes` repeats a name.
    """
    _check_classes(classes)
    draft = read_table(Path(path))
    problems = tuple(list_problems(draft, classes))
    if problems:
        raise ManifestError(problems)
    return _finish(draft, classes)


def check_manifest(path: str | Path, *, classes: Sequence[str] | None = None, decode: bool = False) -> tuple[str, ...]:
    """Return every problem that `read_manifest` would refuse, one sentence each; empty if there is none.

    Args:
        path: The table or folder.
        classes: Class names in the order of the logits, or None to take them from the labels.
        decode: Also open every image and mask, and look for the same image in two splits.

    Raises:
        ValueError: If `classes` repeats a name.
    """
    _check_classes(classes)
    try:
        draft = read_table(Path(path))
    except ManifestError as error:
        return error.problems
    return (*list_problems(draft, classes), *(list_image_problems(draft) if decode else ()))


def write_manifest(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table whole or not at all, as CSV or Parquet by the suffix.

    Args:
        table: One row per image. Lists, such as boxes, are written as JSON.
        path: Where to; its folder is created if needed.

    Raises:
        ValueError: If the suffix is neither `.csv` nor `.parquet`.
    """
    path = Path(path)
    if path.suffix not in {".csv", ".parquet"}:
        raise ValueError(f"Expected `path` to end in .csv or .parquet, but got {path.name!r}. Rename it.")
    plain = table.map(lambda cell: json.dumps(cell) if isinstance(cell, list) else cell)
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            plain.to_csv(temporary, index=False, lineterminator="\n")
        else:
            plain.to_parquet(temporary, index=False)


def _finish(draft: Draft, classes: Sequence[str] | None) -> Manifest:
    table = draft.table.assign(image=draft.table["image"].map(normalize_path))
    if "label" not in table:
        names = tuple(classes or ())
        flags = {name: table[name].map(read_whole).astype(np.int64) for name in names}
        return Manifest(table.assign(**flags), draft.root, names, "multilabel", rows=draft.rows)
    names = tuple(classes) if classes else infer_classes(list(table["label"]))
    labels = [names[index] for label in table["label"] if (index := find_class(label, names)) is not None]
    return Manifest(table.assign(label=labels), draft.root, names, "multiclass", rows=draft.rows)


def _check_classes(classes: Sequence[str] | None) -> None:
    if classes is not None and (isinstance(classes, str) or len(set(classes)) < max(len(classes), 1)):
        raise ValueError(f"Expected `classes` to be one or more different names, but got {classes!r}.")
