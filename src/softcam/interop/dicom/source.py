"""The image that was predicted, as far as new objects refer to it: one frame, with its patient, study and place."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pydicom.valuerep import STR_VR, PersonName, validate_value

from softcam.errors import DicomError
from softcam.imaging import DecodedImage, decode_image
from softcam.imaging.dicom import is_dicom
from softcam.imaging.dicom.silence import silenced
from softcam.imaging.image import DECODER_ERRORS

UNICODE = "ISO_IR 192"
HEADER_ERRORS = (*DECODER_ERRORS, BytesLengthException)
"""What a header that is not as the standard has it makes libraries raise, in words that may quote it."""

_HEAD = 132  # bytes that tell a DICOM file

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
_EMPTY_IF_ABSENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_DROPPED = (
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "IconImageSequence", "NumberOfFrames",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ContributingEquipmentSequence",
)  # fmt: skip
_PLACES = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
}
_SLIDE = ("ImageOrientationSlide", "ImageCenterPointCoordinatesSequence", "TotalPixelMatrixOriginSequence")


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One image, or one frame of a multi-frame image, without its pixels.

    Args:
        header: Its data set as if it were a single Secondary Capture: text in Unicode, patient and study complete, and
            its place at the root whether it came from functional groups or not.
        content: Where it was read from: a path, or the file's bytes.
        sop_class_uid: Its true class.
        sop_instance_uid: The instance.
        frame: Number of the frame from 1; None for an image of one frame.
    """

    header: Dataset
    content: str | Path | bytes
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def has_place(self) -> bool:
        """Whether the place of its pixels in a frame of reference is known."""
        return "ImagePositionPatient" in self.header

    def decode(self) -> DecodedImage:
        """Read the pixels of the frame.

        Raises:
            ImageError: If they cannot be read.
        """
        return decode_image(self.content, frame=self.frame)

    def refer(self, dataset: Dataset) -> None:
        """Make every reference of a new object to this source name its true class and frame.

        Args:
            dataset: The object, changed in place.
        """
        # highdicom puts one item into two lists, of which only one may name a frame.
        if "SourceImageSequence" in dataset:
            dataset.SourceImageSequence = copy.deepcopy(list(dataset.SourceImageSequence))
        for name, item, holder in list_items(dataset):
            if item.get("ReferencedSOPInstanceUID") == self.sop_instance_uid:
                item.ReferencedSOPClassUID = self.sop_class_uid
                # Lists of all references, which are kept by series, name instances alone.
                listed = name == "ReferencedSOPSequence" and "SeriesInstanceUID" in holder
                if self.frame is not None and name in ("SourceImageSequence", "ReferencedSOPSequence") and not listed:
                    item.ReferencedFrameNumber = self.frame


def read_source(source: str | Path | bytes, *, frame: int | None = None) -> SourceFrame:
    """Read the header of a DICOM image.

    Args:
        source: A path, or the file's bytes.
        frame: Number of the frame from 1; needed where there are several.

    Raises:
        DicomError: If this is no DICOM image, if an identifier is missing, or if there is no such frame.
    """
    with silenced():
        try:
            return _make_source(source, _read(source), frame)
        except HEADER_ERRORS:
            raise DicomError("Expected a DICOM image, but its header is damaged.") from None


def _read(source: str | Path | bytes) -> Dataset:
    content = source if isinstance(source, bytes) else _read_file(Path(source))
    if not is_dicom(content[:_HEAD]):
        raise DicomError("Expected a DICOM image, but got another kind of file.")
    dataset = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, force=True)
    dataset.decode()
    return dataset


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DicomError(f"Expected a readable file, but it is not: {(error.strerror or 'unknown').lower()}.") from None


def _make_source(content: str | Path | bytes, dataset: Dataset, frame: int | None) -> SourceFrame:
    if missing := [name for name in _NEEDED if not dataset.get(name)]:
        raise DicomError(f"Expected a DICOM image, but its header has no {', '.join(missing)}.")
    number = _choose_frame(dataset, frame)
    header = _copy_header(dataset, number or 1)
    _store_as_unicode(header)
    for name in _EMPTY_IF_ABSENT:
        if name not in header:
            setattr(header, name, "")
    _repair(header)
    if "SliceThickness" not in header:
        header.SliceThickness = None
    if not _knows_place(header):
        for name in ("ImagePositionPatient", "ImageOrientationPatient"):
            if name in header:
                delattr(header, name)
    header.SOPClassUID = SecondaryCaptureImageStorage
    return SourceFrame(header, content, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), number)


def _choose_frame(dataset: Dataset, frame: int | None) -> int | None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frame is not None and not 1 <= frame <= frames:
        raise DicomError(f"Expected `frame` to be from 1 to {frames}, but got {frame}.")
    if frames == 1:
        return None
    if frame is None:
        raise DicomError(f"Expected `frame` to say which of {frames} frames was predicted, but got None.")
    return frame


def _copy_header(dataset: Dataset, number: int) -> Dataset:
    """Return the header of one frame, with what functional groups say of its place at the root."""
    header = Dataset()
    dropped = {*_DROPPED, *_SLIDE}
    for element in dataset:
        if element.keyword not in dropped and not element.tag.is_private:
            header.add(copy.copy(element))
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or [])[:1], *frames[number - 1 : number]]
    for group in groups:
        for sequence, names in _PLACES.items():
            for item in (group.get(sequence) or [])[:1]:
                for name in names:
                    if name in item:
                        header[name] = copy.copy(item[name])
    return header


def _store_as_unicode(header: Dataset) -> None:
    """Prepare for Unicode: names of classes may need characters that the header's own set lacks."""
    for dataset in (header, *(item for _, item, _ in list_items(header))):
        for element in dataset:
            # A name remembers the bytes that it was read from.
            if element.VR == "PN" and element.value:
                many = [element.value] if isinstance(element.value, str | PersonName) else element.value
                element.value = [PersonName(str(value)) for value in many]
    header.SpecificCharacterSet = UNICODE


def _repair(header: Dataset) -> None:
    """Leave out what no new object may repeat, because it is not a value of its kind; a patient's identifiers stay."""
    for element in list(header):
        if element.keyword not in _EMPTY_IF_ABSENT and not _is_valid(element):
            del header[element.tag]
    for name in ("PatientBirthDate", "StudyDate", "StudyTime"):
        if not _is_valid(header[name]):
            setattr(header, name, "")
    if header.PatientSex not in ("M", "F", "O", ""):
        header.PatientSex = ""
    named = "DeidentificationMethod" in header or "DeidentificationMethodCodeSequence" in header
    if header.get("PatientIdentityRemoved") == "YES" and not named:
        header.DeidentificationMethod = "not stated in the source"


def _is_valid(element: DataElement) -> bool:
    if element.VR == "SQ" or element.is_empty:
        return True
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    try:
        for value in values:
            validate_value(element.VR, str(value) if element.VR in STR_VR else value, RAISE)
    except ValueError:
        return False
    return True


def _knows_place(header: Dataset) -> bool:
    numbers = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    has = "FrameOfReferenceUID" in header and UID(header.FrameOfReferenceUID).is_valid
    return has and all(_is_vector(header.get(name), length) for name, length in numbers)


def _is_vector(value: Any, length: int) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
        return False
    return all(math.isfinite(float(number)) for number in value)


def list_items(dataset: Dataset) -> Iterator[tuple[str, Dataset, Dataset]]:
    """Yield every nested data set, with the keyword of the sequence that it is in and with that sequence's holder."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield element.keyword, item, dataset
                yield from list_items(item)
