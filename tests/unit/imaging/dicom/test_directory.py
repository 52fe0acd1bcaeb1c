from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softcam.errors import ImageError
from softcam.imaging.dicom import is_dicom, is_directory, list_references

pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
NAMES = ("DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nooffset", "DICOMDIR-nopatient")


@pytest.mark.parametrize("name", [*NAMES, "DICOMDIR-reordered"])
def test_every_file_is_listed_once_as_folders_and_name(test_files: Path, name: str) -> None:
    content = (test_files / "dicomdirtests" / name).read_bytes()
    assert is_directory(content[:1024])
    found = list_references(content)
    assert len(found) == len(set(found)) == 31
    assert ("77654033", "CR1", "6154") in found
    assert all((test_files / "dicomdirtests").joinpath(*parts).is_file() for parts in found)


def test_an_empty_directory_lists_nothing(test_files: Path) -> None:
    content = (test_files / "dicomdirtests" / "DICOMDIR-empty.dcm").read_bytes()
    assert is_directory(content[:1024])
    assert list_references(content) == []


def test_other_files_are_no_directory(test_files: Path, make_dicom: Callable[..., bytes]) -> None:
    assert not is_directory((test_files / "rtstruct.dcm").read_bytes()[:1024])
    assert not is_directory(make_dicom(np.zeros((4, 4), np.uint8))[:1024])
    assert not is_directory(b"")


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_directory_that_is_cut_does_not_pass_for_a_shorter_one(test_files: Path, name: str, undefined: bool) -> None:
    content = (test_files / "dicomdirtests" / name).read_bytes()
    if undefined:
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset["DirectoryRecordSequence"].is_undefined_length = True
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, dataset)
        content = stream.getvalue()
        assert len(list_references(content)) == 31
    for share in (0.3, 0.7, 0.95):
        with pytest.raises(ImageError, match="truncated or damaged"):
            list_references(content[: int(share * len(content))])


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (bytes(128) + b"DICM", True),
        (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", True),
        (b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100", True),
        (b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100", True),
        (b"\x02\x00\x00\x00UL\x04\x00", True),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"\xff\xd8\xff\xe0", False),
        (b"II*\x00\x08\x00\x00\x00", False),
        (b"BM\x08\x00", False),
        (b"\x00\x00\x02\x00\x00\x00\x00\x00", False),
        (b"\x08\x00", False),
        (b"", False),
        (b"\x20\x08\x00\x05\x00CS", False),
    ],
)
def test_content_decides(start: bytes, expected: bool) -> None:
    assert is_dicom(start) == expected
