"""Tables of images as they lie on disk (CSV, Parquet, one folder per class), read as text and not yet judged."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from softcam.data.paths import IMAGE_SUFFIXES
from softcam.errors import ManifestError

SPLITS = ("train", "val", "test")
_STORED_NAMES = ("manifest.csv", "manifest.parquet")
_EMPTY = frozenset({"", "nan", "<na>"})


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Images, one per row, and what is known about each.

    Attributes:
        table: One row per image; `image` is a path relative to `root`.
        root: The folder that every path of the table starts from and stays in.
        rows: Row numbers, shape (N,), as a spreadsheet shows them (the header is row 1); None for a tree of folders.
    """

    table: pd.DataFrame
    root: Path
    rows: NDArray[np.int64] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.table)

    def cell(self, position: int, column: str) -> str:
        """Return the text of a cell, `""` where it is empty or the column is absent.

        Args:
            position: Position in the table, counted from 0.
            column: Name of the column.
        """
        return _to_text(self.table[column].iloc[position]) if column in self.table else ""

    def place(self, *positions: int) -> str:
        """Name rows for a message: by number, or by path where the images come from a tree of folders.

        Args:
            positions: Positions in the table, counted from 0.
        """
        if self.rows is None:
            return ", ".join(repr(str(self.table["image"].iloc[position])) for position in positions)
        numbers = ", ".join(str(self.rows[position]) for position in positions)
        return f"{'row' if len(positions) == 1 else 'rows'} {numbers}"


@dataclass(frozen=True, eq=False)
class Draft(ImageTable):
    """A table of text cells (`""` where empty) before its checks.

    Attributes:
        problems: What was already wrong while reading; the rows concerned are not in the table.
    """

    problems: tuple[str, ...] = ()


def read_table(path: Path) -> Draft:
    """Read a CSV or Parquet file, a folder that holds `manifest.csv` or `manifest.parquet`, or a folder per class.

    Args:
        path: The file or folder.

    Raises:
        ManifestError: If there is no table to be read at all.
    """
    if path.is_dir():
        stored = [path / name for name in _STORED_NAMES if (path / name).is_file()]
        return read_table(stored[0]) if stored else _read_folders(path)
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise ManifestError(
            [f"Expected the manifest to be a .csv or .parquet file or a folder, but got {path.name!r}."]
        )
    if not path.is_file():
        raise ManifestError([f"Expected the manifest {str(path)!r} to exist, but nothing is there. Check the path."])
    return readers[path.suffix.lower()](path)


def _read_csv(path: Path) -> Draft:
    try:
        # utf-8-sig drops the byte order mark that spreadsheets write.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            records = list(csv.reader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"Expected {path.name!r} to be comma-separated text in UTF-8, but got: {error}. Save it as CSV UTF-8."
        raise ManifestError([message]) from error
    header = [name.strip() for name in records[0]] if records else []
    _check_header(header, path.name)
    # A spreadsheet counts blank lines too, so numbers are given before they are left out.
    numbered = [(number, record) for number, record in enumerate(records[1:], start=2) if any(map(str.strip, record))]
    whole = [(number, record) for number, record in numbered if len(record) == len(header)]
    cells = pd.DataFrame([map(_to_text, record) for _, record in whole], columns=header, dtype="object")
    return Draft(
        _keep_named(cells),
        path.parent,
        problems=tuple(_describe_ragged(numbered, len(header))),
        rows=np.array([number for number, _ in whole], dtype=np.int64),
    )


def _check_header(header: Sequence[str], name: str) -> None:
    if not any(header):
        raise ManifestError([f"Expected {name!r} to start with a row of column names, but got an empty row."])
    separators = {";": "semicolons", "\t": "tabs", "|": "bars"}
    for separator, called in separators.items():
        if len(header) == 1 and separator in header[0]:
            raise ManifestError(
                [f"Expected {name!r} to be separated by commas, but got {called}. Save it with commas."]
            )
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise ManifestError([f"Expected {name!r} to name each column once, but got {repeated} more than once."])


def _describe_ragged(numbered: Iterable[tuple[int, Sequence[str]]], expected: int) -> Iterable[str]:
    for number, record in numbered:
        if len(record) != expected:
            advice = "Put cells that hold a comma in quotes."
            yield f"row {number}: expected {expected} cells as in the header, but got {len(record)}. {advice}"


def _read_parquet(path: Path) -> Draft:
    try:
        stored = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise ManifestError([f"Expected {path.name!r} to be a Parquet table, but it cannot be read as one."]) from error
    header = [str(name) for name in stored.columns]
    _check_header(header, path.name)
    cells = pd.DataFrame({name: [_to_text(cell) for cell in stored[name]] for name in stored.columns}, dtype="object")
    cells.columns = pd.Index(header)
    return Draft(_keep_named(cells), path.parent, rows=np.arange(2, len(cells) + 2, dtype=np.int64))


def _keep_named(cells: pd.DataFrame) -> pd.DataFrame:
    # A spreadsheet's trailing commas and a written index have no name.
    return cells[[name for name in cells.columns if name]]


def _to_text(cell: object) -> str:
    if isinstance(cell, np.ndarray | list | tuple):
        return json.dumps(np.asarray(cell, dtype=object).tolist(), default=lambda inner: inner.tolist())
    if isinstance(cell, bool | np.bool_):
        return str(int(cell))
    text = "" if cell is None else str(cell).strip()
    return "" if text.lower() in _EMPTY else text


def _read_folders(root: Path) -> Draft:
    entries = sorted(entry for entry in root.rglob("*") if not _is_hidden(entry.relative_to(root)))
    images = [entry.relative_to(root) for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
    tops = {entry.name for entry in entries if entry.parent == root and entry.is_dir()}
    depth = 1 if tops and tops <= set(SPLITS) else 0
    labelled = [image for image in images if len(image.parts) > depth + 1]
    columns = {
        "image": [image.as_posix() for image in labelled],
        "label": [image.parts[depth] for image in labelled],
    } | ({"split": [image.parts[0] for image in labelled]} if depth else {})
    problems = [
        *_describe_strays(images, depth),
        *_describe_links(entries, root),
        *(f"{name!r}: expected the folder to hold images, but got none." for name in sorted(_find_bare(tops, images))),
    ]
    return Draft(pd.DataFrame(columns, dtype="object"), root, problems=tuple(problems))


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _find_bare(tops: set[str], images: Iterable[Path]) -> set[str]:
    return tops - {image.parts[0] for image in images}


def _describe_strays(images: Iterable[Path], depth: int) -> Iterable[str]:
    for image in images:
        if len(image.parts) <= depth + 1:
            yield f"{image.as_posix()!r}: expected each image to be in the folder of its class. Move it there."


def _describe_links(entries: Iterable[Path], root: Path) -> Iterable[str]:
    # The walk does not enter linked folders: their images would be missing without a word.
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            yield f"{entry.relative_to(root).as_posix()!r}: expected a folder, but got a link to one. Copy it here."
