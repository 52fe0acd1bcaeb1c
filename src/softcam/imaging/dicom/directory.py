"""DICOMDIR: the table of contents of a disc, of which only the names of files are read."""

from __future__ import annotations

import io
from typing import Any

from softcam.errors import ImageError
from softcam.imaging.dicom.header import DAMAGED, is_dicom
from softcam.imaging.dicom.silence import guarded
from softcam.libraries import load_library

_CLASS = b"\x02\x00\x02\x00UI"  # the element MediaStorageSOPClassUID, always explicit and little endian
_DIRECTORY = b"1.2.840.10008.1.3.10"
_RECORDS = 0x00041220
_SEQUENCE_ENDS = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
_TAIL = 64  # bytes behind which a sequence of unknown length, the last element, has ended


def is_directory(start: bytes) -> bool:
    """Return whether a file is a DICOMDIR, by its first 1024 bytes.

    Args:
        start: At least the first 1024 bytes, or the whole file where it is shorter.
    """
    position = start.find(_CLASS)
    if not is_dicom(start) or position < 0:
        return False
    length = int.from_bytes(start[position + 6 : position + 8], "little")
    return start[position + 8 : position + 8 + length].rstrip(b"\0 ") == _DIRECTORY


def list_references(content: bytes) -> list[tuple[str, ...]]:
    """Return the files that a DICOMDIR names, each once, as folders and file name in the order of its records.

    Args:
        content: The DICOMDIR's bytes.

    Raises:
        ImageError: If it is damaged.
        MissingExtraError: If pydicom is not installed.
    """
    pydicom = load_library("pydicom", extra="dicom")
    with guarded(DAMAGED):
        directory = pydicom.dcmread(io.BytesIO(content), force=True, specific_tags=[_RECORDS])
        if _RECORDS in directory and _is_cut(directory.get_item(_RECORDS), content):
            raise ImageError(DAMAGED)
        found = [_read_reference(record) for record in directory.get("DirectoryRecordSequence") or ()]
    return list(dict.fromkeys(parts for parts in found if parts))


def _is_cut(records: Any, content: bytes) -> bool:
    """Return whether the file ends within its records, of which pydicom would give the first ones as if they were all.

    Args:
        records: The element as it was read, raw where its length is known.
        content: The DICOMDIR's bytes.
    """
    if isinstance(getattr(records, "value", None), bytes):
        return len(records.value) < int(records.length)
    return not any(mark in content[-_TAIL:] for mark in _SEQUENCE_ENDS)


def _read_reference(record: Any) -> tuple[str, ...]:
    value = record.get("ReferencedFileID") or ()
    return (value,) if isinstance(value, str) else tuple(map(str, value))
