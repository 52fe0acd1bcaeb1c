"""What a DICOM file says about its pixels. Nothing else of its header is read: no name, no identifier, no date."""

from __future__ import annotations

import io
import zlib
from functools import cache
from typing import IO, Any

from softcam.errors import ImageError, ImageTooLargeError
from softcam.imaging.dicom.silence import guarded
from softcam.imaging.image import DecodeLimits, check_size
from softcam.libraries import load_library

DAMAGED = "DICOM data are truncated or damaged"

# SOP Class UID; what describes samples, frames, grey values and palettes; spacing; functional groups; pixel data.
_KEYWORDS = (
    *("SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)

_DIRECTORY = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NO_PICTURES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation
        "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
    }
)
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_UNSUPPORTED = ("ARGB", "CMYK", "HSV", "YBR_PARTIAL_420", "YBR_PARTIAL_422")


def is_dicom(start: bytes) -> bool:
    """Return whether a file is DICOM, by its first 132 bytes.

    Data sets that were stored without preamble and prefix are known by their first element, which is one of the groups
    0002 or 0008 in either byte order, with or without the type of its value.

    Args:
        start: At least the first 132 bytes, or the whole file where it is shorter.
    """
    if start[128:132] == b"DICM":
        return True
    little, big = (int.from_bytes(start[:2], order) in (0x0002, 0x0008) for order in ("little", "big"))
    element, kind = start[2:4], start[4:6]
    explicit = kind.isalpha() and kind.isupper()
    if big and not little:
        return explicit and element[:1] == b"\0"
    implicit = start[6:8] == b"\0\0" and len(start) > 8
    return little and element[1:] == b"\0" and (explicit or implicit)


def read_header(stream: IO[bytes], limits: DecodeLimits, *, pixels: bool = True) -> Any:
    """Read what describes the pixels, and the pixel data as they were stored.

    Args:
        stream: The file, at its beginning.
        limits: What the file may cost at most.
        pixels: Whether to read pixel data as well.

    Returns:
        A `pydicom.Dataset` of these elements alone.

    Raises:
        ImageError: If it cannot be read.
        MissingExtraError: If pydicom is not installed.
    """
    pydicom = load_library("pydicom", extra="dicom")
    with guarded(DAMAGED):
        plain = _inflate(stream, limits.max_bytes)
        options = {"force": True, "specific_tags": list(_list_tags()), "stop_before_pixels": not pixels}
        return pydicom.dcmread(plain, **options)


def check_header(header: Any, limits: DecodeLimits) -> int:
    """Refuse what is no picture or cannot be shown, before any pixel is decoded.

    Args:
        header: As `read_header` returns it, with or without pixel data.
        limits: What the image may cost at most.

    Returns:
        The number of frames, >= 1.

    Raises:
        ImageError: With the kind of object or the property that is in the way; never with a value of the header.
    """
    with guarded(DAMAGED):
        kind = name_kind(header)
        if _find_class(header) in _NO_PICTURES:
            raise ImageError(f"{kind}, which is no picture")
        if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
            raise ImageError(f"{kind} with floating-point pixels, which have no known full scale")
        if "Rows" not in header or "Columns" not in header:
            raise ImageError(f"{kind}, which holds no image")
        check_size(read_integer(header, "Columns"), read_integer(header, "Rows"), limits)
        _check_samples(header)
        return _check_frames(header, limits)


def read_integer(header: Any, keyword: str, default: int | None = None) -> int:
    """Return the value of an element that holds one whole number.

    Args:
        header: A data set.
        keyword: The element.
        default: What to return where it is absent or empty.

    Raises:
        ImageError: If it is absent without a default, or holds something else.
    """
    value = read_value(header, keyword)
    if value is None and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        fault = "is missing" if value is None else "is no whole number"
        raise ImageError(f"DICOM element {keyword} {fault}") from None


def read_value(header: Any, keyword: str) -> Any:
    """Return the value of an element, None where it is absent or empty.

    What pydicom raises on a damaged value is left to the caller's `guarded`.

    Args:
        header: A data set.
        keyword: The element.
    """
    value = header.get(keyword)
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def name_kind(header: Any) -> str:
    """Return the registered name of what the file is, never the text of the file itself.

    Args:
        header: As `read_header` returns it.
    """
    value = _find_class(header)
    if value == _DIRECTORY:
        return "DICOM directory (DICOMDIR)"
    known = load_library("pydicom.uid", extra="dicom").UID_dictionary.get(value)
    return f"DICOM {known[0]}" if known else "DICOM object of an unknown kind"


@cache
def _list_tags() -> tuple[int, ...]:
    datadict = load_library("pydicom.datadict", extra="dicom")
    return tuple(int(datadict.tag_for_keyword(keyword)) for keyword in _KEYWORDS)


def _inflate(stream: IO[bytes], max_bytes: int) -> IO[bytes]:
    """Return the stream, unpacked where the whole data set is deflated; pydicom would unpack without bounds."""
    start = stream.read(1024)
    stream.seek(0)
    if _DEFLATED.encode() not in start or start[128:132] != b"DICM":
        return stream
    reader = load_library("pydicom.filereader", extra="dicom")
    stream.seek(132)
    meta = reader.read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)  # noqa: FBT003
    if meta.get("TransferSyntaxUID") != _DEFLATED:
        stream.seek(0)
        return stream
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacking.decompress(stream.read(max_bytes + 1), max_bytes)
    if not unpacking.eof:
        raise ImageError(f"DICOM data are truncated or unpack to more than {max_bytes} bytes")
    explicit = b"\x02\x00\x10\x00UI\x14\x00" + b"1.2.840.10008.1.2.1\0"
    return io.BytesIO(bytes(128) + b"DICM" + explicit + content)


def _find_class(header: Any) -> str:
    value = read_value(header, "SOPClassUID") or read_value(header.file_meta, "MediaStorageSOPClassUID")
    return str(value) if isinstance(value, str) else ""


def _check_samples(header: Any) -> None:
    photometric = read_value(header, "PhotometricInterpretation")
    samples = read_integer(header, "SamplesPerPixel", 1)
    if photometric not in {1: _GREY, 3: _COLOUR}.get(samples, ()):
        known = photometric in (*_GREY, *_COLOUR, *_UNSUPPORTED)
        raise ImageError(f"{samples} samples of {photometric if known else 'an unknown kind'} are not supported")
    allocated = read_integer(header, "BitsAllocated")
    stored = read_integer(header, "BitsStored")
    if allocated not in (1, 8, 16):
        raise ImageError(f"{allocated}-bit samples, expected at most 16 bits")
    if not 1 <= stored <= allocated:
        raise ImageError(f"{stored} bits stored of {allocated}")
    if read_integer(header, "PixelRepresentation", 0) not in (0, 1):
        raise ImageError("DICOM element PixelRepresentation is neither 0 nor 1")


def _check_frames(header: Any, limits: DecodeLimits) -> int:
    frames = max(1, read_integer(header, "NumberOfFrames", 1))
    if frames > limits.max_frames:
        raise ImageTooLargeError(f"file with more than {limits.max_frames} images")
    return frames
