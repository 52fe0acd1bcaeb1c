from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from softcam.errors import DicomError
from softcam.interop.dicom import read_source

Packaged = Callable[[str], Path]


def test_a_path_and_its_bytes_are_the_same_source(packaged: Packaged) -> None:
    path = packaged("CT_small.dcm")
    by_path, by_bytes = read_source(path), read_source(path.read_bytes())
    assert by_path.size == by_bytes.size == (128, 128)
    assert by_path.sop_instance_uid == by_bytes.sop_instance_uid == pydicom.dcmread(path).SOPInstanceUID
    assert by_path.frame is None
    assert by_path.has_place
    assert "PixelData" not in by_path.header


def test_a_picture_has_no_place(packaged: Packaged) -> None:
    assert not read_source(packaged("examples_rgb_color.dcm")).has_place


def test_a_frame_takes_its_place_from_the_functional_groups(packaged: Packaged) -> None:
    source = read_source(packaged("volume.dcm"), frame=2)
    assert source.has_place
    assert source.frame == 2
    assert len(source.header.PixelSpacing) == 2


@pytest.mark.parametrize(
    ("name", "frame", "message"),
    [
        ("film.dcm", None, "`frame` to say which of 30 frames"),
        ("film.dcm", 31, "`frame` to be from 1 to 30, but got 31"),
        ("film.dcm", 0, "`frame` to be from 1 to 30, but got 0"),
        ("CT_small.dcm", 2, "`frame` to be from 1 to 1, but got 2"),
        ("rtstruct.dcm", None, "header has no"),
        ("README.txt", None, "another kind of file"),
        ("absent.dcm", None, "no such file"),
    ],
)
def test_what_is_no_image_is_refused(name: str, frame: int | None, message: str, packaged: Packaged) -> None:
    with pytest.raises(DicomError, match=message):
        read_source(
            packaged("CT_small.dcm").with_name(name) if name not in ("film.dcm",) else packaged(name), frame=frame
        )


def test_an_image_without_an_identifier_is_refused(packaged: Packaged, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(packaged("CT_small.dcm"))
    del dataset.SeriesInstanceUID
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(DicomError, match="header has no SeriesInstanceUID"):
        read_source(tmp_path / "a.dcm")
