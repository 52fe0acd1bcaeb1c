from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from softcam.errors import DicomError
from softcam.interop.dicom import KINDS, ModelIdentity, ObjectSettings, RunKey, read_source, write_objects
from softcam.interop.dicom.evidence_map import PADDING
from softcam.predict import Prediction

Predict = Callable[..., Prediction]
Packaged = Callable[[str], Path]

SOURCES = [
    ("CT_small.dcm", None),
    ("MR_small.dcm", None),
    ("examples_rgb_color.dcm", None),
    ("examples_palette.dcm", None),
    ("693_J2KI.dcm", None),
    ("film.dcm", 7),
    ("volume.dcm", 2),
]
CLASSES = {"map": "30", "segmentation": "66.4", "report": "88.33", "capture": "7"}


@pytest.fixture
def write(tmp_path: Path, identity: ModelIdentity, predict: Predict) -> Callable[..., dict[str, Dataset]]:
    """Write all objects of a file and read them back."""

    def make(path: Path, frame: int | None = None, **options: Any) -> dict[str, Dataset]:
        source = read_source(path, frame=frame)
        prediction = options.pop("prediction", None) or predict(*source.size)
        settings, read = options.pop("settings", ObjectSettings()), options.pop("read", True)
        paths = write_objects(prediction, source, tmp_path / "out", model=identity, settings=settings, **options)
        return {path.stem: pydicom.dcmread(path) for path in paths if read}

    return make


def list_datasets(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from list_datasets(item)


@pytest.mark.parametrize(("name", "frame"), SOURCES)
def test_the_validator_finds_no_error(
    name: str,
    frame: int | None,
    packaged: Packaged,
    write: Callable[..., Any],
    validate: Callable[[Path], list[str]],
    tmp_path: Path,
) -> None:
    write(packaged(name), frame)
    found = {kind: validate(tmp_path / "out" / f"{kind}.dcm") for kind in KINDS}
    assert found == {kind: [] for kind in KINDS}


@pytest.mark.parametrize(("name", "frame"), SOURCES)
def test_objects_belong_to_the_study_and_refer_to_the_source(
    name: str, frame: int | None, packaged: Packaged, write: Callable[..., Any]
) -> None:
    source = pydicom.dcmread(packaged(name), stop_before_pixels=True)
    made = write(packaged(name), frame)
    assert list(made) == list(KINDS)
    for kind, dataset in made.items():
        assert dataset.SOPClassUID == f"1.2.840.10008.5.1.4.1.1.{CLASSES[kind]}"
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert str(dataset.PatientID) == str(source.get("PatientID", ""))
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        references = [item for item in list_datasets(dataset) if "ReferencedSOPInstanceUID" in item]
        to_source = [item for item in references if item.ReferencedSOPInstanceUID == source.SOPInstanceUID]
        assert to_source
        assert {item.ReferencedSOPClassUID for item in to_source} == {source.SOPClassUID}
        frames = {item.ReferencedFrameNumber for item in to_source if "ReferencedFrameNumber" in item}
        assert frames == (set() if frame is None else {frame})
        assert dataset.DeviceSerialNumber == "0123456789abcdef" * 4
        assert dataset.SoftwareVersions.startswith("softcam ")
    for attribute in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({getattr(dataset, attribute) for dataset in made.values()}) == len(KINDS)


@pytest.mark.parametrize(("name", "frame"), SOURCES)
def test_a_map_gives_back_the_same_numbers_on_the_right_pixels(
    name: str, frame: int | None, packaged: Packaged, write: Callable[..., Any], predict: Predict
) -> None:
    source = read_source(packaged(name), frame=frame)
    prediction = predict(*source.size)
    assert prediction.geometry is not None
    made = write(packaged(name), frame, prediction=prediction, settings=ObjectSettings(kinds=("map",)))
    read = hd.pm.ParametricMap.from_dataset(made["map"])
    stored = np.atleast_3d(read.pixel_array).reshape(len(prediction.classes), *source.size)
    rows, columns = prediction.placement.find_cells(prediction.maps.shape[1:])
    labels = [group.FrameContentSequence[0].FrameLabel for group in read.PerFrameFunctionalGroupsSequence]
    assert sorted(labels) == sorted(prediction.classes)
    assert labels == [prediction.classes[index] for index in np.argsort(-prediction.logits)]
    assert stored.dtype == np.float32
    outside = (rows[:, None] < 0) | (columns[None, :] < 0)
    for label, frame_pixels in zip(labels, stored, strict=True):
        cells = prediction.maps[prediction.classes.index(label)][rows[:, None], columns[None, :]]
        assert np.array_equal(frame_pixels, np.where(outside, np.float32(PADDING), cells))
    assert read.FloatPixelPaddingValue == np.float32(PADDING)


def test_the_marked_corner_lands_where_the_crop_begins(
    packaged: Packaged, write: Callable[..., Any], predict: Predict
) -> None:
    """Of 128 x 128 pixels the view takes 89.6 x 76.8 from x = 26, y = 13; a cell has 17.92 x 25.6."""
    made = write(packaged("CT_small.dcm"))
    for index, group in enumerate(made["map"].PerFrameFunctionalGroupsSequence):
        if group.FrameContentSequence[0].FrameLabel == "opacity":
            marked = made["map"].pixel_array[index] == np.float32(21.5)
    assert np.argwhere(marked).min(0).tolist() == [13, 26]
    assert np.argwhere(marked).max(0).tolist() == [38, 43]
    assert marked.sum() == 26 * 18
    place = made["map"].PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    source = pydicom.dcmread(packaged("CT_small.dcm"))
    assert list(place.ImagePositionPatient) == list(source.ImagePositionPatient)
    shared = made["map"].SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == list(source.PixelSpacing)
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == list(source.ImageOrientationPatient)
    assert made["map"].FrameOfReferenceUID == source.FrameOfReferenceUID
    segment = made["segmentation"].pixel_array.astype(bool)
    assert np.array_equal(segment, marked), "only the marked cell reaches half of the strongest evidence"


def test_frames_of_a_volume_are_in_their_own_place(packaged: Packaged, write: Callable[..., Any]) -> None:
    source = pydicom.dcmread(packaged("volume.dcm"))
    for frame in (1, 2):
        group = write(packaged("volume.dcm"), frame)["map"].PerFrameFunctionalGroupsSequence[0]
        expected = source.PerFrameFunctionalGroupsSequence[frame - 1].PlanePositionSequence[0].ImagePositionPatient
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == list(expected)


def test_the_unit_is_the_logit_and_the_quantity_a_class_activation(
    packaged: Packaged, write: Callable[..., Any]
) -> None:
    read = write(packaged("CT_small.dcm"))["map"]
    mapping = read.PerFrameFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning) == ("{logit}", "UCUM", "logit")
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodingSchemeDesignator, quantity.CodeMeaning) == ("DCM", "Class activation")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert read.ContentQualification == "RESEARCH"


def test_without_a_crop_nothing_is_padded(packaged: Packaged, write: Callable[..., Any], predict: Predict) -> None:
    whole = predict(128, 128)
    assert whole.geometry is not None
    whole = replace(
        whole,
        geometry=replace(whole.geometry, scale_x=128 / 150, scale_y=128 / 90, offset_x=0.0, offset_y=0.0),
    )
    read = write(packaged("CT_small.dcm"), prediction=whole)["map"]
    assert "FloatPixelPaddingValue" not in read
    assert read.pixel_array.min() == whole.maps.min()


def test_a_threshold_is_stated_and_changes_the_segment(
    packaged: Packaged, write: Callable[..., Any], predict: Predict
) -> None:
    prediction = predict(128, 128)
    peak = float(np.abs(prediction.margin()).max())
    sizes = []
    for share in (0.03, 0.5):
        read = write(packaged("CT_small.dcm"), settings=ObjectSettings(threshold=share))["segmentation"]
        text = read.SegmentSequence[0].SegmentDescription
        assert f"at least {share * peak:.6g} logits per cell, {100 * share:g} % of the strongest evidence" in text
        assert text.startswith("Evidence for opacity against ")
        algorithm = read.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmVersion == "0123456789abcdef" * 4
        assert algorithm.AlgorithmName == "SoftCAM timm:test_resnet"
        sizes.append(int(read.pixel_array.sum()))
    assert sizes[0] > sizes[1] > 0


def test_a_segment_may_be_empty(packaged: Packaged, write: Callable[..., Any], predict: Predict) -> None:
    maps = np.zeros((3, 3, 5), np.float32)
    maps[1] = 1.0
    maps[1, 0, 0] = -9.0
    prediction = replace(predict(128, 128), maps=maps, logits=maps.mean((1, 2)), predicted="opacity")
    read = write(packaged("CT_small.dcm"), prediction=prediction)
    assert read["segmentation"].pixel_array.sum() == 0
    assert len(read["segmentation"].SegmentSequence) == 1


def find_measurements(report: Dataset, group: str) -> dict[str, float]:
    for found in list_datasets(report):
        names = [item for item in found.get("ContentSequence", []) if item.ValueType == "TEXT"]
        if any(item.TextValue == f"SoftCAM {group}" for item in names):
            numbers = [item for item in found.ContentSequence if item.ValueType == "NUM"]
            return {
                item.ConceptNameCodeSequence[0].CodeValue: float(
                    item.MeasuredValueSequence[0].get("FloatingPointValue", item.MeasuredValueSequence[0].NumericValue)
                )
                for item in numbers
            }
    raise AssertionError(f"no group {group}")


def test_the_report_adds_up(packaged: Packaged, write: Callable[..., Any], predict: Predict) -> None:
    prediction = predict(128, 128)
    report = write(packaged("CT_small.dcm"), settings=ObjectSettings(threshold=0.03, max_regions=4))["report"]
    overall = find_measurements(report, "prediction")
    parts = [
        find_measurements(report, group) for group in ("region 1", "region 2", "region 3", "region 4", "remainder")
    ]
    shown, rival = prediction.contrast
    assert overall["logit"] == pytest.approx(float(prediction.logits[shown]), abs=1e-9)
    assert overall["margin"] == pytest.approx(float(prediction.logits[shown] - prediction.logits[rival]), abs=1e-6)
    assert sum(part["to-logit"] for part in parts) == pytest.approx(
        prediction.maps[shown].astype(float).mean(), abs=1e-9
    )
    assert sum(part["to-logit"] for part in parts) == pytest.approx(overall["logit"], rel=1e-5)
    assert sum(part["to-margin"] for part in parts) == pytest.approx(overall["margin"], rel=1e-5)
    assert sum(part["cells"] for part in parts) == 15
    one = find_measurements(report, "class 1")
    assert one["122157"] == pytest.approx(float(prediction.probabilities[0]), abs=1e-9)
    assert one["logit"] == pytest.approx(float(prediction.logits[0]), abs=1e-9)


def test_the_report_outlines_regions_on_the_source(packaged: Packaged, write: Callable[..., Any]) -> None:
    report = write(packaged("CT_small.dcm"))["report"]
    outlines = [item for item in list_datasets(report) if item.get("ValueType") == "SCOORD"]
    assert len(outlines) == 1
    points = np.array(outlines[0].GraphicData).reshape(-1, 2)
    left, top, width, height = 26.0, 13.0, 0.7 * 128 / 5, 0.6 * 128 / 3
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height), (left, top)]
    assert points == pytest.approx(np.array(corners), abs=1e-4)


def test_independent_classes_have_no_rival(packaged: Packaged, write: Callable[..., Any], predict: Predict) -> None:
    prediction = predict(128, 128, multi_label=True, predicted="opacity;other")
    made = write(packaged("CT_small.dcm"), prediction=prediction)
    assert "margin" not in find_measurements(made["report"], "prediction")
    assert "to-margin" not in find_measurements(made["report"], "remainder")
    chosen = [
        item.ConceptCodeSequence[0].CodeMeaning
        for item in list_datasets(made["report"])
        if item.get("ValueType") == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "predicted"
    ]
    assert chosen == ["opacity", "other"]
    assert "against" not in made["segmentation"].SegmentSequence[0].SegmentDescription


def test_the_capture_shows_the_source_and_the_evidence(packaged: Packaged, write: Callable[..., Any]) -> None:
    path = packaged("examples_rgb_color.dcm")
    source, made = pydicom.dcmread(path), write(path)["capture"]
    assert made.pixel_array.shape == source.pixel_array.shape
    assert made.PhotometricInterpretation == "RGB"
    height, width = source.pixel_array.shape[:2]
    outside = np.ones((height, width), bool)
    outside[round(0.1 * height) : round(0.7 * height) + 1, round(0.2 * width) : round(0.9 * width) + 1] = False
    assert np.array_equal(made.pixel_array[outside], source.pixel_array[outside])
    assert not np.array_equal(made.pixel_array, source.pixel_array)
    assert "Evidence for opacity against" in made.DerivationDescription
    assert "0123456789abcdef" * 4 in made.DerivationDescription


def test_the_capture_has_its_colour_where_the_network_looked(
    packaged: Packaged, write: Callable[..., Any], predict: Predict
) -> None:
    """Of 128 x 128 grey pixels the view takes 89.6 x 76.8 from x = 26, y = 13."""
    whole = predict(128, 128)
    maps = np.zeros_like(whole.maps)
    maps[1] = 1.0
    prediction = replace(whole, maps=maps, logits=np.array([0, 1, 0], np.float32), predicted="opacity")
    settings = ObjectSettings(kinds=("capture",))
    pixels = write(packaged("CT_small.dcm"), prediction=prediction, settings=settings)["capture"].pixel_array
    coloured = (pixels != pixels[..., :1]).any(2)
    expected = np.zeros((128, 128), bool)
    expected[13:90, 26:116] = True
    assert np.array_equal(coloured, expected)


@pytest.mark.parametrize("value", ["YES", "NO", None])
def test_a_capture_says_of_burned_in_text_what_its_source_says(
    value: str | None, mark: Callable[..., Path], write: Callable[..., Any]
) -> None:
    path = mark(**({} if value is None else {"BurnedInAnnotation": value}))
    assert write(path)["capture"].get("BurnedInAnnotation") == value


def test_what_is_written_again_is_a_new_object_in_the_same_series(
    packaged: Packaged, write: Callable[..., Any]
) -> None:
    key = RunKey()
    first, second, other = (write(packaged("CT_small.dcm"), key=given) for given in (key, key, RunKey()))
    for kind in KINDS:
        assert first[kind].SeriesInstanceUID == second[kind].SeriesInstanceUID != other[kind].SeriesInstanceUID
        assert len({made[kind].SOPInstanceUID for made in (first, second, other)}) == 3


def test_text_of_other_alphabets_survives(
    mark: Callable[..., Path], write: Callable[..., Any], predict: Predict
) -> None:
    path = mark(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
    classes = ("normal", "肺炎", "andere")
    prediction = predict(128, 128, classes=classes, predicted="肺炎")
    made = write(path, prediction=prediction)
    for dataset in made.values():
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == "Müller^Jürgen"
    assert "肺炎" in made["segmentation"].SegmentSequence[0].SegmentLabel


def test_long_names_and_many_classes_fit(
    packaged: Packaged,
    write: Callable[..., Any],
    predict: Predict,
    validate: Callable[[Path], list[str]],
    tmp_path: Path,
) -> None:
    names = tuple(f"a very long name of a class with a \\ in it, which is number {number:03d}" for number in range(40))
    maps = np.random.default_rng(1).normal(size=(40, 3, 5)).astype(np.float32)
    logits = maps.mean((1, 2))
    prediction = predict(
        128,
        128,
        classes=names,
        predicted=names[int(logits.argmax())],
        maps=maps,
        logits=logits,
        probabilities=np.full(40, 1 / 40, np.float32),
    )
    made = write(packaged("CT_small.dcm"), prediction=prediction)
    assert made["map"].NumberOfFrames == 16
    assert [validate(tmp_path / "out" / f"{kind}.dcm") for kind in KINDS] == [[]] * 4


def test_weak_evidence_has_a_window_that_the_standard_allows(
    packaged: Packaged,
    write: Callable[..., Any],
    predict: Predict,
    validate: Callable[[Path], list[str]],
    tmp_path: Path,
) -> None:
    prediction = predict(128, 128)
    weak = replace(prediction, maps=prediction.maps / 1000, logits=prediction.logits / 1000)
    made = write(packaged("CT_small.dcm"), prediction=weak)["map"]
    window = made.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert 0 < window.WindowWidth < 1
    assert validate(tmp_path / "out" / "map.dcm") == []


def test_a_header_with_bad_values_is_repaired_where_it_must_be_repeated(
    mark: Callable[..., Path], write: Callable[..., Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = mark(PatientSex="x", PatientBirthDate="soon", StudyTime="noon")
    made = write(path)["map"]
    assert (made.PatientSex, made.PatientBirthDate, made.StudyTime) == ("", "", "")


def test_nothing_of_the_header_is_logged(
    mark: Callable[..., Path],
    write: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = mark(PatientName="Nadja" * 20, PatientID="MRN-4711-SECRET" * 9, PatientBirthDate="Nadja")
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        write(path, read=False)
    output = capfd.readouterr()
    texts = [record.getMessage() for record in caplog.records] + [str(warning.message) for warning in warned]
    assert (texts, output.out, output.err) == ([], "", "")
    assert not logging.getLogger("highdicom.base").disabled


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "failed", "geometry": None}, "status 'ok', but got a failed one"),
        ({}, r"source of \(128, 128\) pixels, but it is about one of \(64, 128\)"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, packaged: Packaged, write: Callable[..., Any], predict: Predict
) -> None:
    with pytest.raises(DicomError, match=message):
        write(packaged("CT_small.dcm"), prediction=predict(64, 128, **changes))


def test_a_failure_leaves_no_file(
    packaged: Packaged, write: Callable[..., Any], predict: Predict, tmp_path: Path
) -> None:
    prediction = predict(128, 128)
    with pytest.raises(DicomError, match="report can be built"):
        write(
            packaged("CT_small.dcm"),
            prediction=replace(prediction, probabilities=np.full(3, np.nan, np.float32)),
            settings=ObjectSettings(kinds=("report",)),
        )
    assert list((tmp_path / "out").iterdir()) == []
