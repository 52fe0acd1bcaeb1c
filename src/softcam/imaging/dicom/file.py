"""One DICOM file, read once, whose frames are decoded when they are asked for."""

from __future__ import annotations

import copy
import hashlib
import io
import math
from dataclasses import dataclass
from typing import IO, Any

from softcam.errors import ImageError
from softcam.imaging.dicom.display import show
from softcam.imaging.dicom.header import DAMAGED, check_header, read_header, read_value
from softcam.imaging.dicom.pixels import read_pixels
from softcam.imaging.dicom.silence import guarded
from softcam.imaging.image import DEFAULT_LIMITS, DecodedImage, DecodeLimits

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Elements that give the millimetres between rows and between columns, the first that is there."""

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = ("PixelMeasuresSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A DICOM file that holds pictures.

    Args:
        header: What describes the pixels, and the pixels as they were stored; nothing about the patient.
        digest: SHA-256 of the file's bytes in hexadecimal.
        frames: How many pictures there are, >= 1.
    """

    header: Any
    digest: str
    frames: int

    def decode(self, frame: int | None = None) -> DecodedImage:
        """Return one picture as a viewer shows it; may be called from several threads.

        Args:
            frame: Which one, counted from 1; None for the only one.

        Raises:
            ImageError: If there is no such frame, or it cannot be decoded.
            MissingExtraError: If the codecs are not installed.
        """
        number = self._choose(frame)
        with guarded(DAMAGED):
            header = _merge_groups(self.header, number - 1)
            pixels = show(read_pixels(self.header, number - 1), header)
            spacing = _find_spacing(header)
        return DecodedImage(pixels, "DICOM", self.digest, spacing, number if self.frames > 1 else None)

    def _choose(self, frame: int | None) -> int:
        if frame is None and self.frames > 1:
            raise ImageError(f"DICOM file with {self.frames} frames, of which one must be chosen by its number")
        if frame is not None and not 1 <= frame <= self.frames:
            raise ImageError(f"frame {frame} of a file with {self.frames}")
        return frame or 1


def read_dicom(content: bytes, *, limits: DecodeLimits = DEFAULT_LIMITS) -> DicomFile:
    """Read a DICOM file without decoding a pixel.

    Args:
        content: The file's bytes.
        limits: What the file may cost at most.

    Raises:
        ImageError: If it holds no picture or one that cannot be shown, with a short reason that quotes nothing of the
            header.
        MissingExtraError: If pydicom is not installed.
    """
    header = read_header(io.BytesIO(content), limits)
    frames = check_header(header, limits)
    return DicomFile(header, hashlib.sha256(content).hexdigest(), frames)


def count_dicom_frames(stream: IO[bytes], *, limits: DecodeLimits = DEFAULT_LIMITS) -> int:
    """Return how many pictures a DICOM file holds, reading no more than its header.

    Args:
        stream: The file, at its beginning.
        limits: What the file may cost at most.

    Raises:
        ImageError: As `read_dicom`.
        MissingExtraError: If pydicom is not installed.
    """
    return check_header(read_header(stream, limits, pixels=False), limits)


def _merge_groups(header: Any, index: int) -> Any:
    """Return the header with what functional groups say about all frames and about this one."""
    if not any(keyword in header for keyword in _GROUPS):
        return header
    merged = copy.copy(header)
    shared, own = (read_value(header, keyword) for keyword in _GROUPS)
    for groups, position in ((shared, 0), (own, index)):
        if groups is None or position >= len(groups):
            continue
        for macro in _MACROS:
            if items := read_value(groups[position], macro):
                merged.update(items[0])
    return merged


def _find_spacing(header: Any) -> tuple[float, float] | None:
    for keyword in SPACINGS:
        value = read_value(header, keyword)
        try:
            rows, columns = (float(number) for number in value)
        except (TypeError, ValueError, OverflowError):
            continue
        if all(math.isfinite(number) and number > 0 for number in (rows, columns)):
            return rows, columns
    return None
