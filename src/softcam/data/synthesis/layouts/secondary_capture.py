"""Radiographs as DICOM Secondary Capture in JPEG Baseline, with the header elements of the RSNA challenge's files."""

from __future__ import annotations

import importlib
import io
import uuid
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from softcam.data.synthesis.layouts.layout import encode_jpeg
from softcam.errors import MissingExtraError

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
IMPLEMENTATION = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'softcam').int}"


@dataclass(frozen=True)
class Header:
    """What differs between the files' headers.

    Args:
        patient: Identifier, which is the name as well.
        sex: `F` or `M`.
        age: In years.
        view: `PA` (from behind, standing) or `AP` (from the front, mostly lying).
        spacing: Millimetres from pixel to pixel.
        study: Unique identifier; likewise the next two.
        series: Of the only series.
        instance: Of the only image.
    """

    patient: str
    sex: str
    age: int
    view: str
    spacing: float
    study: str
    series: str
    instance: str


def encode_secondary_capture(pixels: NDArray[np.uint8], header: Header) -> bytes:
    """Return a DICOM file.

    As in the challenge's files the age is a bare number (`51`, where the standard has `051Y`).

    Args:
        pixels: (H, W), bright where little passes.
        header: Of the file.

    Raises:
        MissingExtraError: If pydicom is not installed.
    """
    pydicom = load_pydicom()
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    dataset.file_meta.MediaStorageSOPInstanceUID = header.instance
    dataset.file_meta.TransferSyntaxUID = JPEG_BASELINE
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION
    dataset.file_meta.ImplementationVersionName = "SOFTCAM"
    for keyword, value in (_describe(header) | _describe_pixels(pixels)).items():
        setattr(dataset, keyword, value)
    dataset.add(pydicom.DataElement("PatientAge", "AS", str(header.age), validation_mode=pydicom.config.IGNORE))
    dataset.PixelData = pydicom.encaps.encapsulate([encode_jpeg(pixels)], has_bot=False)
    dataset["PixelData"].VR = "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def load_pydicom() -> ModuleType:
    """Return pydicom.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        importlib.import_module("pydicom.encaps")
        return importlib.import_module("pydicom")
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom") from error


def _describe(header: Header) -> dict[str, object]:
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": SECONDARY_CAPTURE,
        "SOPInstanceUID": header.instance,
        "StudyDate": "19010101",
        "StudyTime": "000000.00",
        "AccessionNumber": "",
        "Modality": "CR",
        "ConversionType": "WSD",
        "ReferringPhysicianName": "",
        "SeriesDescription": f"view: {header.view}",
        "PatientName": header.patient,
        "PatientID": header.patient,
        "PatientBirthDate": "",
        "PatientSex": header.sex,
        "BodyPartExamined": "CHEST",
        "ViewPosition": header.view,
        "StudyInstanceUID": header.study,
        "SeriesInstanceUID": header.series,
        "StudyID": "",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PatientOrientation": "",
        "PixelSpacing": [header.spacing, header.spacing],
    }


def _describe_pixels(pixels: NDArray[np.uint8]) -> dict[str, object]:
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "LossyImageCompression": "01",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
