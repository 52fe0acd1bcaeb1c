from __future__ import annotations

import gc
import shutil
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softcam.errors import ImageError
from softcam.imaging.dicom import read_dicom
from softcam.reporting.inputs import Entry, list_entries, summarize
from softcam.reporting.stored import StoredFile

pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
DISC = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 8, 9), dtype=np.uint8)
SINGLE = FRAMES[0] // 2
Make = Callable[..., bytes]


def listed(*inputs: Path, **options: object) -> list[Entry]:
    return list(list_entries(inputs, exclude=Path("/nowhere"), **options))


@pytest.fixture
def folder(tmp_path: Path, make_dicom: Make) -> Path:
    """One file with three frames and one with a single one."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cine.dcm").write_bytes(make_dicom(FRAMES))
    (tmp_path / "in" / "one.dcm").write_bytes(make_dicom(SINGLE))
    return tmp_path / "in"


def test_each_frame_is_an_image(folder: Path) -> None:
    entries = listed(folder)
    assert [entry.id for entry in entries] == ["cine.dcm#1", "cine.dcm#2", "cine.dcm#3", "one.dcm"]
    assert [entry.frame for entry in entries] == [1, 2, 3, None]
    for entry, pixels in zip(entries, [*FRAMES, SINGLE], strict=True):
        np.testing.assert_array_equal(entry.decode().pixels, pixels)
        assert entry.read() == entry.path.read_bytes()


def test_one_frame_is_chosen_where_there_are_several(folder: Path) -> None:
    entries = listed(folder, frames=2)
    assert [entry.id for entry in entries] == ["cine.dcm#2", "one.dcm"]
    np.testing.assert_array_equal(entries[0].decode().pixels, FRAMES[1])
    (beyond, _) = listed(folder, frames=4)
    with pytest.raises(ImageError, match="frame 4 of a file with 3"):
        beyond.decode()


def test_frames_in_an_archive(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "cine.dcm", "sub/cine.dcm")
    entries = listed(tmp_path / "a.zip")
    assert [entry.id for entry in entries] == [f"sub/cine.dcm#{number}" for number in (1, 2, 3)]
    np.testing.assert_array_equal(entries[2].decode().pixels, FRAMES[2])
    assert entries[0].read() == (folder / "cine.dcm").read_bytes()


def test_a_file_is_read_once_for_its_frames_and_then_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def count(content: bytes, **options: object) -> object:
        file = read_dicom(content, **options)  # type: ignore[arg-type]
        read.append(weakref.ref(file))
        return file

    monkeypatch.setattr("softcam.reporting.stored.read_dicom", count)
    entries = listed(folder / "cine.dcm")
    for entry in entries:
        entry.decode()
    assert len(read) == 1
    del entry, entries
    gc.collect()
    assert read[0]() is None


def test_what_is_no_picture_is_one_entry(folder: Path) -> None:
    files = Path(pydicom.__file__).parent / "data" / "test_files"
    entries = listed(files / "rtdose.dcm", files / "rtstruct.dcm", files / "MR_truncated.dcm")
    assert [entry.id for entry in entries] == ["rtdose.dcm", "rtstruct.dcm", "MR_truncated.dcm"]
    for entry, reason in zip(entries, ("RT Dose Storage", "RT Structure Set Storage", "truncated"), strict=True):
        with pytest.raises(ImageError, match=reason):
            entry.decode()


def test_a_directory_names_its_files(tmp_path: Path) -> None:
    entries = listed(DISC / "DICOMDIR")
    assert len(entries) == 31
    assert entries[0].id == "77654033/CR1/6154"
    assert entries[0].path == DISC / "77654033" / "CR1" / "6154"
    assert not any(entry.refusal for entry in entries)
    empty = listed(DISC / "DICOMDIR-empty.dcm")
    assert [(entry.id, entry.refusal) for entry in empty] == [
        ("DICOMDIR-empty.dcm", "DICOM directory (DICOMDIR) without files")
    ]


def test_a_directory_in_a_folder_or_an_archive_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copy(DISC / "DICOMDIR", tmp_path / "DICOMDIR")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(DISC / "DICOMDIR", "DICOMDIR")
    (directory, _) = [entry for entry in listed(tmp_path, tmp_path / "a.zip") if entry.id.startswith("DICOMDIR")]
    with pytest.raises(ImageError, match=r"DICOM directory \(DICOMDIR\), which holds no image"):
        directory.decode()


def write_directory(path: Path, *references: list[str]) -> Path:
    dataset = pydicom.dcmread(DISC / "DICOMDIR-empty.dcm")
    dataset.DirectoryRecordSequence = []
    for reference in references:
        record = pydicom.Dataset()
        record.ReferencedFileID = reference
        record.PatientName = "MARKED^PATIENT"
        dataset.DirectoryRecordSequence.append(record)
    dataset.save_as(path)
    return path


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS", "ignore:The value length")
def test_a_directory_leads_nowhere_but_below_its_folder(tmp_path: Path, make_dicom: Make) -> None:
    disc = tmp_path / "disc"
    (disc / "lower").mkdir(parents=True)
    (tmp_path / "SECRET").write_bytes(b"x")
    (disc / "lower" / "im1").write_bytes(make_dicom(SINGLE))
    (disc / "LINK").symlink_to(tmp_path / "SECRET")
    references = [["..", "SECRET"], ["LINK"], ["GONE", "IM2"], ["LOWER", "IM1"], ["LOWER", "IM1"], ["A/../../SECRET"]]
    entries = listed(write_directory(disc / "DICOMDIR", *references))
    out = "reference that leads out of the folder"
    assert [entry.refusal for entry in entries] == [out, out, "", "", out]
    with pytest.raises(ImageError, match="file not found"):
        entries[2].decode()
    np.testing.assert_array_equal(entries[3].decode().pixels, SINGLE)
    assert [entry.id for entry in entries[1:4]] == ["LINK", "GONE/IM2", "LOWER/IM1"]


def test_the_summary_sees_members_and_frames(folder: Path, tmp_path: Path) -> None:
    def pack(name: str, content: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a", content)
        return tmp_path / name

    same = [summarize(listed(pack(name, b"abc"))) for name in ("1.zip", "2.zip")]
    assert same[0] == same[1]
    assert summarize(listed(pack("3.zip", b"abd"))) != same[0]
    assert summarize(listed(folder, frames=1)) != summarize(listed(folder, frames=2))
    assert summarize(listed(folder))[0] == 4


def test_a_file_that_is_too_large_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert StoredFile(tmp_path / "a").read(5) == b"12345"
    with pytest.raises(ImageError, match="file is larger than 4 bytes"):
        StoredFile(tmp_path / "a").read(4)
    with pytest.raises(ImageError, match="file cannot be read: no such file"):
        StoredFile(tmp_path / "b").read()
