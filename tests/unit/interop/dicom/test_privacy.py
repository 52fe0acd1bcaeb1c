from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from softcam.errors import DicomError
from softcam.interop.dicom import (
    KINDS,
    Deidentified,
    Deidentifier,
    ModelIdentity,
    ObjectSettings,
    RunKey,
    deidentify_files,
    read_source,
    write_objects,
)
from softcam.interop.dicom.runs import KEY_NAME

SECRETS = (b"Nadja", b"NADJA", b"MRN-4711", b"19630713", b"20010917", b"ACC-9911", b"Hidden", b"Veiled")
Mark = Callable[..., Path]


def list_datasets(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from list_datasets(item)


def clean(path: Path, key: RunKey | None = None) -> Dataset:
    dataset = pydicom.dcmread(path, force=True)
    Deidentifier(key or RunKey())(dataset)
    return dataset


def assert_no_secret(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not [secret for secret in SECRETS if secret in str(path).encode()]
        if path.is_file():
            assert not [secret for secret in SECRETS if secret in path.read_bytes()], path


def test_the_marks_are_found_where_nothing_was_cleaned(mark: Mark) -> None:
    content = mark().read_bytes()
    assert [secret for secret in SECRETS if secret in content] == [s for s in SECRETS if s != b"NADJA"]


def test_no_mark_is_left_on_any_level(mark: Mark, tmp_path: Path) -> None:
    dataset = clean(mark(folder=tmp_path / "in"))
    dataset.save_as(tmp_path / "out" / "a.dcm") if (tmp_path / "out").mkdir() is None else None
    assert_no_secret(tmp_path / "out")
    assert dataset.PatientIdentityRemoved == "YES"
    assert "PS3.15 basic profile" in list(dataset.DeidentificationMethod)
    codes = [(item.CodeValue, item.CodingSchemeDesignator) for item in dataset.DeidentificationMethodCodeSequence]
    assert codes == [("113100", "DCM")]
    assert not [element for element in dataset if element.tag.is_private]


def test_nested_values_are_cleaned_where_the_sequence_stays(mark: Mark) -> None:
    inner = Dataset()
    inner.PatientName = "Marked^Nadja"
    inner.SOPInstanceUID = "1.2.3.4"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([inner])
    dataset = clean(mark(SourceImageSequence=Sequence([item])))
    kept = dataset.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0]
    assert kept.PatientName == ""
    assert kept.SOPInstanceUID.startswith("2.25.")


def test_references_still_point_to_each_other(mark: Mark, tmp_path: Path) -> None:
    first = pydicom.dcmread(mark(folder=tmp_path / "a"))
    reference = Dataset()
    reference.ReferencedSOPClassUID = first.SOPClassUID
    reference.ReferencedSOPInstanceUID = first.SOPInstanceUID
    second = mark(folder=tmp_path / "b", SOPInstanceUID="1.2.3.4.5", SourceImageSequence=Sequence([reference]))
    key = RunKey()
    a, b = clean(tmp_path / "a" / "CT_small.dcm", key), clean(second, key)
    assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID != first.SOPInstanceUID
    assert b.SourceImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID, "classes are no identifiers"
    assert a.StudyInstanceUID == b.StudyInstanceUID != first.StudyInstanceUID
    assert a.FrameOfReferenceUID == b.FrameOfReferenceUID != first.FrameOfReferenceUID
    assert a.file_meta.MediaStorageSOPInstanceUID == a.SOPInstanceUID
    assert clean(tmp_path / "a" / "CT_small.dcm").StudyInstanceUID != a.StudyInstanceUID, "another run, another key"


def test_pixels_and_what_is_said_of_them_stay(mark: Mark) -> None:
    path = mark(BurnedInAnnotation="YES")
    before, after = pydicom.dcmread(path), clean(path)
    assert after.PixelData == before.PixelData
    assert after.BurnedInAnnotation == "YES"
    assert (after.Rows, after.PixelSpacing, after.RescaleSlope) == (
        before.Rows,
        before.PixelSpacing,
        before.RescaleSlope,
    )


def test_a_preamble_does_not_stay(mark: Mark, tmp_path: Path) -> None:
    path = mark()
    path.write_bytes(b"Nadja".ljust(128, b"\0") + path.read_bytes()[128:])
    dataset = clean(path)
    dataset.save_as(tmp_path / "clean.dcm", enforce_file_format=True)
    assert b"Nadja" not in (tmp_path / "clean.dcm").read_bytes()


@pytest.mark.parametrize("name", ["rtstruct.dcm", "reportsi.dcm", "waveform_ecg.dcm"])
def test_objects_of_free_text_are_refused(name: str, packaged: Callable[[str], Path]) -> None:
    with pytest.raises(DicomError, match="content may name the patient"):
        clean(packaged(name))


def write_clean(path: Path, folder: Path, predict: Callable[..., Any], identity: ModelIdentity, **options: Any) -> None:
    source = read_source(path)
    settings = ObjectSettings(deidentify=True)
    write_objects(predict(*source.size), source, folder, model=identity, settings=settings, **options)


def test_written_objects_hold_no_mark_and_still_fit_the_standard(
    mark: Mark,
    tmp_path: Path,
    predict: Callable[..., Any],
    identity: ModelIdentity,
    validate: Callable[[Path], list[str]],
) -> None:
    write_clean(mark(folder=tmp_path / "in"), tmp_path / "out", predict, identity)
    assert_no_secret(tmp_path / "out")
    assert {kind: validate(tmp_path / "out" / f"{kind}.dcm") for kind in KINDS} == {kind: [] for kind in KINDS}


def test_written_objects_refer_to_the_clean_copy_of_their_source(
    mark: Mark, tmp_path: Path, predict: Callable[..., Any], identity: ModelIdentity
) -> None:
    path, key = mark(folder=tmp_path / "in"), RunKey()
    write_clean(path, tmp_path / "out", predict, identity, key=key)
    copy = clean(path, key)
    for kind in KINDS:
        made = pydicom.dcmread(tmp_path / "out" / f"{kind}.dcm")
        assert made.StudyInstanceUID == copy.StudyInstanceUID
        found = {item.get("ReferencedSOPInstanceUID") for item in list_datasets(made)} - {None}
        assert copy.SOPInstanceUID in found
        assert pydicom.dcmread(path).SOPInstanceUID not in found
        codes = [item.CodeValue for item in made.DeidentificationMethodCodeSequence]
        assert codes == (["113100", "113104"] if kind == "report" else ["113100"])


def test_the_content_of_a_report_stays(
    mark: Mark, tmp_path: Path, predict: Callable[..., Any], identity: ModelIdentity
) -> None:
    write_clean(mark(folder=tmp_path / "in"), tmp_path / "out", predict, identity)
    report = pydicom.dcmread(tmp_path / "out" / "report.dcm")
    meanings = {item.get("CodeMeaning") for item in list_datasets(report)}
    assert {"opacity", "normal", "Probability", "Contribution to the logit of the class"} <= meanings
    numbers = [item for item in list_datasets(report) if "NumericValue" in item]
    assert len(numbers) > 8
    assert any(float(item.NumericValue) != 0 for item in numbers)


# Copies of files


def test_copies_have_new_names_and_their_references(mark: Mark, tmp_path: Path) -> None:
    mark(folder=tmp_path / "in" / "Marked^Nadja")
    mark("MR_small.dcm", folder=tmp_path / "in" / "Marked^Nadja")
    (tmp_path / "in" / "notes.txt").write_text("Nadja")
    copies = list(deidentify_files([tmp_path / "in"], tmp_path / "out"))
    assert [copy.problem for copy in copies] == ["", ""]
    assert all(copy.path is not None and copy.path.is_file() for copy in copies)
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    assert_no_secret(tmp_path / "out")
    assert not (tmp_path / "out" / KEY_NAME).exists()


def test_one_bad_file_does_not_stop_the_rest(mark: Mark, tmp_path: Path, packaged: Callable[[str], Path]) -> None:
    folder = tmp_path / "in"
    good = mark(folder=folder)
    (folder / "broken.dcm").write_bytes(good.read_bytes()[:200])
    (folder / "text.dcm").write_bytes(packaged("rtstruct.dcm").read_bytes())
    copies = {copy.source.name: copy for copy in deidentify_files([folder, tmp_path / "absent"], tmp_path / "out")}
    assert copies["CT_small.dcm"].problem == ""
    assert copies["broken.dcm"].problem
    assert "content may name the patient" in copies["text.dcm"].problem
    assert copies["absent"].problem == "cannot be read: no such file or directory"
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 1


@pytest.mark.parametrize(("value", "doubtful"), [("YES", True), ("NO", False), (None, True)])
def test_pixels_that_may_show_text_are_named(value: str | None, doubtful: bool, mark: Mark, tmp_path: Path) -> None:
    path = mark(folder=tmp_path / "in", **({} if value is None else {"BurnedInAnnotation": value}))
    assert [copy.may_show_text for copy in deidentify_files([path], tmp_path / "out")] == [doubtful]


def test_a_run_that_was_ended_continues_with_the_same_identifiers(mark: Mark, tmp_path: Path) -> None:
    mark(folder=tmp_path / "in")
    mark("MR_small.dcm", folder=tmp_path / "in")
    run = deidentify_files([tmp_path / "in"], tmp_path / "out")
    first = next(run)
    run.close()  # type: ignore[attr-defined]
    assert first.path is not None
    assert (tmp_path / "out" / KEY_NAME).stat().st_mode & 0o077 == 0
    copies: list[Deidentified] = list(deidentify_files([tmp_path / "in"], tmp_path / "out"))
    assert copies[0].path == first.path
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2


def test_a_finished_folder_is_not_mixed_with_another_run(mark: Mark, tmp_path: Path) -> None:
    path = mark(folder=tmp_path / "in")
    list(deidentify_files([path], tmp_path / "out"))
    with pytest.raises(DicomError, match="to be new or to hold this unfinished run"):
        list(deidentify_files([path], tmp_path / "out"))


def test_no_file_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DicomError, match="at least one DICOM file"):
        list(deidentify_files([tmp_path / "in"], tmp_path / "out"))
    with pytest.raises(TypeError, match="Use a list"):
        list(deidentify_files(str(tmp_path), tmp_path / "out"))
