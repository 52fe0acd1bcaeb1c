"""A data set's official download, drawn: the same folders, names, tables and formats, with invented patients.

Each image depends on the seed and its own number alone, so that begun work can go on and a larger set begins with the
smaller one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from softcam.data.synthesis.scene import SynthesisSettings
from softcam.data.synthesis.sets import claim_folder, create_generator, write_all
from softcam.files import write_atomic
from softcam.runs import write_table

Rows = Mapping[str, Sequence[Sequence[object]]]
"""Name of a table -> its rows that are about one image."""

Choice = TypeVar("Choice")

QUALITY = 92
"""Of JPEG files."""

GOLDEN = (5**0.5 - 1) / 2

PATIENT, MOMENT, CHOICE, IDENTITY, GRADE, FRAME = 0, 1, 10, 11, 12, 13
"""What random numbers are for: looks of a patient and of an image, its class, name, grade, and what is around it."""


@dataclass(frozen=True)
class Layout:
    """The official download of a data set.

    Args:
        name: In commands and records.
        title: What the images show, in a few words.
        size: Height of an image in pixels where nothing else is asked for.
        tables: Name of each table in the folder and its columns.
        write: Writes the image of a number into a folder, unless it is there, and returns its rows of the tables.
    """

    name: str
    title: str
    size: int
    tables: Mapping[str, Sequence[str]]
    write: Callable[[int, Path, SynthesisSettings], Rows]


def write_layout(
    layout: Layout,
    out: str | Path,
    settings: SynthesisSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write images, tables, and beside them `masks/` and `synthesis.json`, which the official download has not.

    The tables are written last; the same call continues interrupted work.

    Args:
        layout: Of which data set.
        out: The folder; new, empty, or begun with the same layout and settings.
        settings: Default: `SynthesisSettings` with the layout's size.
        progress: Called with the images that are done and those in all.

    Returns:
        The folder.

    Raises:
        ValueError: If a shortcut is asked for, which needs the splits that a download has not.
        ManifestError: If the folder holds something else already.
        MissingExtraError: If the layout is one of DICOM files and pydicom is not installed.
    """
    settings, folder = settings or SynthesisSettings(size=layout.size), Path(out)
    if settings.shortcut:
        raise ValueError(
            f"Expected `shortcut` to be False for {layout.name}, but got True. An official download has no splits that "
            "a shortcut could tell apart; draw lesions, oct or radiograph for it."
        )
    claim_folder(folder, layout.name, settings)
    done = write_all(lambda number: layout.write(number, folder, settings), settings.images, progress)
    for name, columns in layout.tables.items():
        table = pd.DataFrame([row for rows in done for row in rows[name]], columns=list(columns))
        write_table(folder / name, table)
    return folder


def write_mask(folder: Path, name: str, mask: NDArray[np.bool_]) -> None:
    """Write where the finding of an image is as `masks/<name>_mask.png`, which no reader of a download takes for it."""
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, format="png")
    write_atomic(folder / "masks" / f"{name}_mask.png", stream.getvalue())


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture, grey or in colours, as JPEG Baseline."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="jpeg", quality=QUALITY)
    return stream.getvalue()


def choose(shares: Mapping[Choice, float], settings: SynthesisSettings, number: int) -> Choice:
    """Return one of the choices so that among the first numbers each has its share, to within about one of them.

    Args:
        shares: Choice -> how frequent it is, in any unit.
        settings: Of the set, whose seed decides where the sequence begins.
        number: Of the image or patient, from 0.

    Reference:
        Weyl's equidistribution; multiples of the golden ratio spread most evenly.
    """
    start = create_generator(settings, CHOICE, 0).random()
    return pick(shares, (start + number * GOLDEN) % 1)


def pick(shares: Mapping[Choice, float], at: float) -> Choice:
    """Return the choice at a point of [0, 1), of which each takes its share in turn."""
    ends = np.cumsum(list(shares.values()))
    return list(shares)[int(np.searchsorted(ends, at * ends[-1], side="right"))]
