"""Real DICOM files, and predictions about them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import UltrasoundMultiFrameImageStorage

from softcam.imaging import Geometry
from softcam.interop.dicom import ModelIdentity
from softcam.predict import Prediction

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CLASSES = ("normal", "opacity", "other")


@pytest.fixture(scope="session")
def identity() -> ModelIdentity:
    return ModelIdentity("timm:test_resnet", "0123456789abcdef" * 4)


def _write_ultrasound(path: Path) -> None:
    """Write a film of 30 frames whose class is in force; that of the packaged one is retired."""
    dataset = pydicom.dcmread(FILES / "examples_ybr_color.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.save_as(path)


def _write_volume(path: Path) -> None:
    """Write an image of two slices, whose place is in functional groups."""
    slices = [pydicom.dcmread(FILES / "CT_small.dcm") for _ in range(2)]
    slices[1].SOPInstanceUID = f"{slices[0].SOPInstanceUID}.1"
    slices[1].InstanceNumber = 2
    slices[1].ImagePositionPatient[2] += 5
    volume = hd.legacy.LegacyConvertedEnhancedCTImage(slices, hd.UID(), 5, hd.UID(), 1)
    volume.save_as(path)


MADE = {"film.dcm": _write_ultrasound, "volume.dcm": _write_volume}


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the path of a file that pydicom ships, or of one that is made from such a file."""
    folder = tmp_path_factory.mktemp("made")

    def find(name: str) -> Path:
        path = FILES / name
        if name in MADE and not (path := folder / name).exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                MADE[name](path)
        assert path.is_file()
        return path

    return find


def make_prediction(height: int, width: int, *, grid: tuple[int, int] = (3, 5), **changes: Any) -> Prediction:
    """Return a prediction on a crop that is neither square nor centred."""
    generator = np.random.default_rng(7)
    maps = generator.normal(0, 1, (len(CLASSES), *grid)).astype(np.float32)
    maps[1, 0, 0] = 21.5
    logits = maps.mean((1, 2), dtype=np.float64).astype(np.float32)
    odds = np.exp(logits - logits.max())
    view_height, view_width = 0.6 * height, 0.7 * width
    geometry = Geometry(
        height, width, 90, 150, scale_x=view_width / 150, scale_y=view_height / 90,
        offset_x=round(0.2 * width), offset_y=round(0.1 * height),
    )  # fmt: skip
    prediction = Prediction(
        id="scan.dcm",
        status="ok",
        classes=CLASSES,
        predicted=CLASSES[int(logits.argmax())],
        probabilities=odds / odds.sum(),
        logits=logits,
        maps=maps,
        geometry=geometry,
        sum_error=0.0,
        digest="d" * 64,
    )
    return replace(prediction, **changes)


@pytest.fixture
def predict() -> Callable[..., Prediction]:
    return make_prediction


@pytest.fixture
def mark(packaged: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Write a file whose header holds marked texts wherever a patient may be named."""

    def write(name: str = "CT_small.dcm", *, folder: Path | None = None, **changes: Any) -> Path:
        dataset = pydicom.dcmread(packaged(name))
        dataset.PatientName = "Marked^Nadja"
        dataset.PatientID = "MRN-4711-SECRET"
        dataset.PatientBirthDate = "19630713"
        dataset.StudyDate = "20010917"
        dataset.AccessionNumber = "ACC-9911"
        dataset.InstitutionName = "Clinic Hidden"
        dataset.ReferringPhysicianName = "Doctor^Veiled"
        dataset.StudyDescription = "Seen for Nadja"
        nested = Dataset()
        nested.PatientName = "Marked^Nadja"
        nested.PatientID = "MRN-4711-SECRET"
        dataset.OtherPatientIDsSequence = [nested]
        deep = Dataset()
        deep.RequestedProcedureDescription = "Seen for Nadja"
        deep.AccessionNumber = "ACC-9911"
        dataset.RequestAttributesSequence = [deep]
        dataset.add_new(0x00091001, "LO", "Marked^Nadja")
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        path = (folder or tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path)
        return path

    return write
