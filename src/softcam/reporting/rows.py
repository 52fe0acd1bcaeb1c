"""Tables that name images, CSV or Parquet, read row by row; a bad row is named and the rest goes on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from softcam.data.paths import create_path_check, normalize_path

_PARQUET = b"PAR1"
_COLUMN = "image"


def is_table(path: Path, start: bytes) -> bool:
    """Return whether a file is a table, by its name or, for Parquet, its first bytes.

    Args:
        path: The file.
        start: Its first bytes.
    """
    return start.startswith(_PARQUET) or (bool(start) and path.suffix.lower() == ".csv")


def list_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield for each row the path of its image, relative to the table, and why it is not opened: empty if it is.

    A row without a usable path is named by its number, where row 1 is the header.

    Args:
        path: A CSV file in UTF-8 or a Parquet file with a column `image`.
    """
    find_fault = create_path_check(path.parent)
    number = 1
    try:
        for number, text, fault in _read_cells(path):
            found = fault or find_fault(text)
            yield (text or f"{path.name}#row{number}", f"expected {found}") if found else (normalize_path(text), "")
    except (UnicodeDecodeError, csv.Error):
        yield path.name, f"table is damaged after row {number}; what follows is lost"
    except (OSError, pa.ArrowException):
        yield path.name, "table cannot be read"


def _read_cells(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield number, text of the image's cell and what is wrong with the row."""
    with path.open("rb") as stream:
        cells = _read_parquet(path) if stream.read(len(_PARQUET)) == _PARQUET else _read_csv(path)
    for number, cell, fault in cells:
        text = "" if cell is None else str(cell).strip()
        yield number, text, fault or ("" if text else f"a path in the column {_COLUMN!r}, but the cell is empty")


def _read_csv(path: Path) -> Iterator[tuple[int, object, str]]:
    # utf-8-sig drops the byte order mark that spreadsheets write.
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, strict=True)
        header = [name.strip() for name in next(lines, [])]
        if _COLUMN not in header:
            yield 1, None, f"a column named {_COLUMN!r}, but the table has none"
            return
        place = header.index(_COLUMN)
        for number, line in enumerate(lines, start=2):
            if not any(map(str.strip, line)):
                continue
            fits = len(line) == len(header)
            fault = "" if fits else f"{len(header)} cells as in the header, but the row has {len(line)}"
            yield number, line[place] if fits else None, fault


def _read_parquet(path: Path) -> Iterator[tuple[int, object, str]]:
    with pq.ParquetFile(path) as file:
        if _COLUMN not in file.schema_arrow.names:
            yield 1, None, f"a column named {_COLUMN!r}, but the table has none"
            return
        number = 1
        for batch in file.iter_batches(columns=[_COLUMN]):
            for cell in batch.column(0).to_pylist():
                number += 1
                yield number, cell, ""
