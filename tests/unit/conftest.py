"""A black box and a DICOM file of the user's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn


class Toy(nn.Module):
    """A classifier that neither timm nor torchvision knows."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(self.norm(self.stem(images)).relu()).flatten(1))


@pytest.fixture
def make_toy() -> Callable[..., Toy]:
    """Build a toy in eval mode, with the same weights each time."""

    def build(num_classes: int = 2) -> Toy:
        torch.manual_seed(0)
        return Toy(num_classes).eval()

    return build


@pytest.fixture
def make_dicom() -> Callable[..., bytes]:
    """Build a DICOM file around pixels (frames, H, W[, 3]) or (H, W[, 3]), with a patient and any further elements."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")

    def build(pixels: np.ndarray, *, syntax: str = "1.2.840.10008.1.2.1", codec: str = "", **elements: Any) -> bytes:
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1" if codec else syntax
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        dataset.PatientName, dataset.PatientID, dataset.StudyDate = "MARKED^PATIENT", "MARKED-ID", "19700101"
        colour = pixels.shape[-1] == 3 and pixels.ndim > 2
        frames = pixels.ndim - colour == 3
        dataset.Rows, dataset.Columns = pixels.shape[frames : frames + 2]
        dataset.SamplesPerPixel = 3 if colour else 1
        dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        if colour:
            dataset.PlanarConfiguration = 0
        if frames:
            dataset.NumberOfFrames = len(pixels)
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        big = syntax == "1.2.840.10008.1.2.2"
        content = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        if "BitsStored" in elements and "HighBit" not in elements:
            dataset.HighBit = dataset.BitsStored - 1
        if codec:
            dataset.compress(syntax, encoding_plugin=codec, generate_instance_uid=False)
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
        return stream.getvalue()

    return build
