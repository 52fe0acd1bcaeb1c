"""Look-up tables as DICOM stores them: of grey values (modality, values of interest) and of colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.errors import ImageError
from softcam.imaging.dicom.header import read_value

_COLOURS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR = 0, 1
_LARGEST = 65536
_DAMAGED = "DICOM palette is damaged"


@dataclass(frozen=True, eq=False)
class LookupTable:
    """Entries for consecutive values; values before the first take the first entry, values behind the last the last.

    Args:
        entries: (N,) or (N, 3), uint8 or uint16.
        first: The value that the first entry is for.
        bits: Bits of an entry, of which the largest stands for the end of the scale.
    """

    entries: npt.NDArray[Any]
    first: int
    bits: int

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the entries of values of any shape, which are rounded to whole numbers."""
        positions = np.rint(values).astype(np.int64) - self.first
        return np.asarray(self.entries[np.clip(positions, 0, len(self.entries) - 1)])


def read_lookup_table(item: Any, *, little: bool) -> LookupTable:
    """Read one item of a sequence of look-up tables.

    Args:
        item: An item of ModalityLUTSequence or VOILUTSequence.
        little: Whether the file is little endian.

    Raises:
        ImageError: If it is incomplete.
    """
    count, first, bits = _read_descriptor(item, "LUTDescriptor")
    return LookupTable(_read_entries(read_value(item, "LUTData"), count, little=little), first, bits)


def read_palette(header: Any) -> LookupTable:
    """Read the red, green and blue palette of an image.

    Entries that are declared or stored with 16 bits but use 8 are taken for what they are.

    Args:
        header: The image's data set.

    Raises:
        ImageError: If it is incomplete.
    """
    little = header.original_encoding[1] is not False
    count, first, bits = _read_descriptor(header, "RedPaletteColorLookupTableDescriptor")
    planes = [_read_plane(header, colour, count, bits, little=little) for colour in _COLOURS]
    entries = np.stack(planes, axis=1)  # (N, 3)
    return LookupTable(entries.astype(np.uint8) if entries.max() < 256 else entries, first, bits)


def _read_plane(header: Any, colour: str, count: int, bits: int, *, little: bool) -> npt.NDArray[Any]:
    data = read_value(header, f"{colour}PaletteColorLookupTableData")
    if data is not None:
        return _read_entries(data, count, little=little)
    data = read_value(header, f"Segmented{colour}PaletteColorLookupTableData")
    if not isinstance(data, bytes):
        raise ImageError("DICOM palette is missing")
    kind = np.dtype(np.uint8) if bits == 8 else np.dtype("<u2" if little else ">u2")
    words = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind).tolist()
    expanded = _expand(words)
    if len(expanded) != count:
        raise ImageError(_DAMAGED)
    return np.array(expanded, np.uint8 if bits == 8 else np.uint16)


def _read_descriptor(item: Any, keyword: str) -> tuple[int, int, int]:
    """Return number of entries, first value and bits of an entry."""
    try:
        count, first, bits = (int(value) for value in read_value(item, keyword))
    except (TypeError, ValueError):
        raise ImageError(f"DICOM element {keyword} is missing or damaged") from None
    if not 0 <= count <= _LARGEST or not 8 <= bits <= 16:
        raise ImageError(f"DICOM element {keyword} is damaged")
    return count or _LARGEST, first, bits


def _read_entries(data: Any, count: int, *, little: bool) -> npt.NDArray[Any]:
    if isinstance(data, bytes):
        # Packed bytes have a byte of padding where their number is odd.
        packed = len(data) in (count, count + count % 2) and count > 1
        data = np.frombuffer(data[: len(data) // 2 * 2] if not packed else data, _word(packed=packed, little=little))
    try:
        entries = np.atleast_1d(np.asarray(data))
        entries = entries.astype(np.uint8 if entries.dtype == np.uint8 else np.uint16)
    except (TypeError, ValueError, OverflowError):
        raise ImageError("DICOM look-up table is damaged") from None
    if entries.ndim != 1 or len(entries) < count:
        raise ImageError("DICOM look-up table is shorter than it says")
    return entries[:count]


def _word(*, packed: bool, little: bool) -> str:
    if packed:
        return "u1"
    return "<u2" if little else ">u2"


def _expand(words: list[int]) -> list[int]:
    """Return the entries that the segments of a palette stand for (PS3.3 C.7.9.2)."""
    entries: list[int] = []
    position = 0
    while position + 1 < len(words):  # there may be a byte of padding
        kind, length = words[position : position + 2]
        position += 2
        if kind == _DISCRETE:
            entries += words[position : position + length]
            position += length
        elif kind == _LINEAR and entries and length and position < len(words):
            steps = np.linspace(entries[-1], words[position], length + 1)[1:]
            entries += np.rint(steps).astype(int).tolist()
            position += 1
        else:
            # An indirect segment repeats others, at an offset that writers count in different units.
            raise ImageError("DICOM palette is damaged or has indirect segments, which are not supported")
        if len(entries) > _LARGEST:
            raise ImageError(_DAMAGED)
    return entries
