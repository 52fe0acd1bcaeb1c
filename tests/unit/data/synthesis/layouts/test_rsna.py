from __future__ import annotations

import io
import sys
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data.synthesis import SynthesisSettings, synthesize_layout
from softcam.data.synthesis.layouts.rsna import CLASSES, LYING, OPACITY, box_around, case_of
from softcam.data.synthesis.layouts.secondary_capture import Header, encode_secondary_capture
from softcam.errors import MissingExtraError

pydicom = pytest.importorskip("pydicom", reason="DICOM files need the extra `dicom`")

SETTINGS = SynthesisSettings(images=20, size=128)
BOX = ["x", "y", "width", "height"]


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_layout("rsna", tmp_path_factory.mktemp("rsna") / "set", SETTINGS)


def test_tables_are_those_of_the_challenge(download: Path) -> None:
    labels, details = (
        pd.read_csv(download / f"stage_2_{name}.csv") for name in ("train_labels", "detailed_class_info")
    )
    assert list(labels) == ["patientId", *BOX, "Target"]
    assert list(details) == ["patientId", "class"]
    assert labels["patientId"].tolist() == details["patientId"].tolist()
    assert set(details["class"]) == {"Normal", "Lung Opacity", "No Lung Opacity / Not Normal"}
    assert (details["class"] == "Lung Opacity").tolist() == (labels["Target"] == 1).tolist()
    assert labels.loc[labels["Target"] == 0, BOX].isna().all(axis=None)
    assert labels.loc[labels["Target"] == 1, BOX].notna().all(axis=None)
    assert labels.loc[labels["Target"] == 0, "patientId"].is_unique
    lines = (download / "stage_2_train_labels.csv").read_text().splitlines()
    assert any(line.endswith(",,,,,0") for line in lines)
    assert any(line.endswith(".0,1") for line in lines)


def test_there_is_a_file_per_patient_named_by_a_uuid(download: Path) -> None:
    names = {path.stem for path in (download / "stage_2_train_images").iterdir()}
    assert names == set(pd.read_csv(download / "stage_2_train_labels.csv")["patientId"])
    assert {path.suffix for path in (download / "stage_2_train_images").iterdir()} == {".dcm"}
    assert len(names) == 20
    assert all(str(uuid.UUID(name)) == name for name in names)


def test_boxes_bound_the_drawn_opacities(download: Path) -> None:
    labels = pd.read_csv(download / "stage_2_train_labels.csv")
    positive = labels[labels["Target"] == 1]
    masks = {p.stem.removesuffix("_mask"): np.asarray(Image.open(p)) > 0 for p in (download / "masks").iterdir()}
    assert set(masks) == set(positive["patientId"])
    for patient, boxes in positive.groupby("patientId"):
        covered = np.zeros((128, 128), dtype=bool)
        for x, y, width, height in boxes[BOX].to_numpy().astype(int):
            inside = (slice(y, y + height), slice(x, x + width))
            part = masks[patient][inside]
            assert part.shape == (height, width)
            assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
            covered[inside] = True
        assert not (masks[patient] & ~covered).any()


def test_files_are_the_challenges_kind_of_dicom(download: Path) -> None:
    for path in sorted((download / "stage_2_train_images").iterdir())[:4]:
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
        assert dataset.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.PatientID == str(dataset.PatientName) == path.stem
        assert (dataset.Modality, dataset.ConversionType, dataset.BodyPartExamined) == ("CR", "WSD", "CHEST")
        assert dataset.SeriesDescription == f"view: {dataset.ViewPosition}"
        assert dataset.PatientSex in {"F", "M"}
        assert 1 <= int(dataset.PatientAge) < 100
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation) == (8, 8, 7, 0)
        assert (dataset.Rows, dataset.Columns, dataset.PhotometricInterpretation) == (128, 128, "MONOCHROME2")
        assert (dataset.LossyImageCompression, dataset.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
        assert float(dataset.PixelSpacing[0]) in {spacing * 8 for spacing in (0.139, 0.143, 0.168, 0.171, 0.194)}
        frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        stored = Image.open(io.BytesIO(frame))
        assert (stored.mode, stored.size) == ("L", (128, 128))
        assert 30 < np.asarray(stored).mean() < 200


def test_headers_have_the_elements_of_a_real_file(download: Path, shared_data: Path) -> None:
    real, drawn = (
        pydicom.dcmread(next(folder.glob("*.dcm")))
        for folder in (shared_data / "dicom_samples", download / "stage_2_train_images")
    )
    assert {element.keyword for element in drawn} == {element.keyword for element in real}
    for keyword in ("SOPClassUID", "Modality", "ConversionType", "BodyPartExamined", "StudyDate", "BitsStored"):
        assert drawn[keyword].value == real[keyword].value


def test_pixels_decode_to_what_was_encoded() -> None:
    pytest.importorskip("libjpeg", reason="JPEG in DICOM needs the extra `dicom`")
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (96, 1))
    header = Header("p", "F", 51, "PA", 0.143, "2.25.1", "2.25.2", "2.25.3")
    dataset = pydicom.dcmread(io.BytesIO(encode_secondary_capture(ramp, header)))
    assert np.abs(dataset.pixel_array.astype(int) - ramp).max() <= 4
    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID) == (
        "2.25.1",
        "2.25.2",
        "2.25.3",
    )
    assert dataset["PatientAge"].value == "51"


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom.encaps", None)
    with pytest.raises(MissingExtraError, match=r"'pydicom' to be installed. Run: pip install 'softcam\[dicom\]'"):
        synthesize_layout("rsna", tmp_path / "set", SETTINGS)
    assert not (tmp_path / "set" / "stage_2_train_images").exists()


def test_identifiers_are_unique_and_of_the_seed() -> None:
    headers = [case_of(number, SETTINGS).header for number in range(50)]
    uids = [uid for header in headers for uid in (header.study, header.series, header.instance)]
    assert len(set(uids)) == 150
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)
    assert headers[7] == case_of(7, SETTINGS).header
    assert headers[7].patient != case_of(7, SynthesisSettings(seed=1)).header.patient


def test_classes_views_and_boxes_are_as_frequent_as_officially() -> None:
    cases = [case_of(number, SynthesisSettings(seed=3)) for number in range(2000)]
    labels = Counter(case.label for case in cases)
    for label, count in CLASSES.items():
        assert labels[label] / 2000 == pytest.approx(count / 26684, abs=0.002)
        lying = np.mean([case.header.view == "AP" for case in cases if case.label == label])
        assert lying == pytest.approx(LYING[label], abs=0.06)
    counts = Counter(case.opacities for case in cases)
    assert counts.pop(0) == labels.total() - labels[OPACITY]
    for count, share in {1: 0.435, 2: 0.543, 3: 0.020, 4: 0.002}.items():
        assert counts[count] / counts.total() == pytest.approx(share, abs=0.05)


def test_a_box_has_left_top_width_and_height() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 7:15] = True
    assert box_around(mask) == (7, 2, 8, 3)
