"""The pixels of one frame as they were stored: unpacked, decompressed, with their sign, colours as RGB."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from softcam.errors import ImageError, MissingExtraError
from softcam.imaging.dicom.header import DAMAGED, name_kind, read_integer, read_value
from softcam.imaging.dicom.silence import guarded
from softcam.libraries import load_library

_BASELINE = "1.2.840.10008.1.2.4.50"
_JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
_JPEG = "1.2.840.10008.1.2.4."
_SIZED_SEGMENTS = frozenset({*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7})


def read_pixels(header: Any, index: int) -> npt.NDArray[Any]:
    """Decompress one frame.

    Args:
        header: As `read_header` returns it with its pixel data, and checked.
        index: Which frame, counted from 0.

    Returns:
        (H, W) of uint8, int8, uint16 or int16 for grey values and palette indices, (H, W, 3) RGB for colours.

    Raises:
        ImageError: If the pixels are absent, damaged or compressed in a way that is not supported.
        MissingExtraError: If the codecs are not installed.
    """
    if "PixelData" not in header:
        raise ImageError(f"{name_kind(header)} without pixel data")
    with guarded(DAMAGED):
        syntax = _find_syntax(header)
        decoder = _find_decoder(syntax)
        _check_bits(header, syntax)
        if not load_library("pydicom.uid", extra="dicom").UID(syntax).is_encapsulated:
            _check_length(header)
        frame = _extract(header, syntax, index) if str(syntax).startswith(_JPEG) else b""
        if syntax == _BASELINE and _is_plain(header):
            return _read_baseline(frame)
        options = _choose_options(syntax, decoder)
        values, properties = decoder.as_array(header, index=index, allow_excess_frames=False, **options)
    if values.ndim == 3 and properties["photometric_interpretation"] != "RGB":
        raise ImageError(f"{header.BitsStored}-bit YBR samples are not supported")
    return _fit_container(values)


def _find_syntax(header: Any) -> Any:
    """Return the transfer syntax; data sets without one are as they were read."""
    uids = load_library("pydicom.uid", extra="dicom")
    value = read_value(header.file_meta, "TransferSyntaxUID")
    if isinstance(value, str):
        return value
    implicit, little = header.original_encoding
    if implicit:
        found = uids.ImplicitVRLittleEndian
    else:
        found = uids.ExplicitVRLittleEndian if little else uids.ExplicitVRBigEndian
    header.file_meta.TransferSyntaxUID = found
    return found


def _find_decoder(syntax: Any) -> Any:
    try:
        decoder = load_library("pydicom.pixels", extra="dicom").get_decoder(syntax)
    except NotImplementedError:
        registered = load_library("pydicom.uid", extra="dicom").UID_dictionary.get(str(syntax))
        name = registered[0] if registered else "an unknown transfer syntax"
        raise ImageError(f"DICOM pixels stored as {name} are not supported") from None
    if not decoder.is_available:
        raise MissingExtraError("pylibjpeg", "dicom")
    return decoder


def _choose_options(syntax: Any, decoder: Any) -> dict[str, str]:
    """Name one codec, so that pixels do not depend on which others happen to be installed."""
    if not syntax.is_encapsulated:
        return {}
    if "pylibjpeg" not in decoder.available_plugins:
        raise MissingExtraError("pylibjpeg", "dicom")
    return {"decoding_plugin": "pylibjpeg"}


def _is_plain(header: Any) -> bool:
    """Return whether samples are unsigned bytes of grey."""
    properties = ("SamplesPerPixel", "BitsAllocated", "PixelRepresentation")
    return tuple(read_integer(header, keyword, 0) for keyword in properties) == (1, 8, 0)


def _read_baseline(frame: bytes) -> npt.NDArray[np.uint8]:
    # Pillow is several times as fast as the other codecs, and as exact where no colours are to be converted.
    with Image.open(io.BytesIO(frame), formats=("JPEG",)) as image:
        return np.asarray(image)


def _extract(header: Any, syntax: Any, index: int) -> bytes:
    """Return a compressed frame that is as large as the header says: the header's size was checked, a codec's is not.

    Raises:
        ImageError: If it is not.
    """
    frames = read_integer(header, "NumberOfFrames", 1) or 1
    offsets = None
    if "ExtendedOffsetTable" in header and "ExtendedOffsetTableLengths" in header:
        offsets = header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths
    encaps = load_library("pydicom.encaps", extra="dicom")
    frame: bytes = encaps.get_frame(header.PixelData, index, number_of_frames=frames, extended_offsets=offsets)
    find = _find_wavelet_size if str(syntax).startswith(_JPEG_2000) else _find_jpeg_size
    if find(frame) != (header.Rows, header.Columns, read_integer(header, "SamplesPerPixel", 1)):
        raise ImageError("DICOM header and compressed pixels differ in size")
    return frame


def _find_jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """Return rows, columns and samples of a JPEG or JPEG-LS image."""
    position = 2
    while True:
        fill, marker, length = struct.unpack_from(">BBH", frame, position)
        if fill != 0xFF:
            raise ImageError(DAMAGED)
        if marker in _SIZED_SEGMENTS:
            rows, columns, samples = struct.unpack_from(">HHB", frame, position + 5)
            return rows, columns, samples
        position += 1 if marker == 0xFF else 2 + length


def _find_wavelet_size(frame: bytes) -> tuple[int, int, int]:
    """Return rows, columns and samples of a JPEG 2000 image, which may be wrapped in the boxes of a JP2 file."""
    position = 0
    if frame[4:8] == b"jP  ":
        while frame[position + 4 : position + 8] != b"jp2c":
            (length,) = struct.unpack_from(">I", frame, position)
            if length < 8:
                raise ImageError(DAMAGED)
            position += length
        position += 8
    if frame[position : position + 4] != b"\xff\x4f\xff\x51":
        raise ImageError(DAMAGED)
    right, lower, left, upper = struct.unpack_from(">4I", frame, position + 8)
    (samples,) = struct.unpack_from(">H", frame, position + 40)
    return lower - upper, right - left, samples


def _check_bits(header: Any, syntax: Any) -> None:
    # Files from before 2008 may keep something else, such as an overlay, below the sample.
    stored = read_integer(header, "BitsStored")
    if read_integer(header, "HighBit", stored - 1) != stored - 1 and not str(syntax).startswith(_JPEG):
        raise ImageError("samples that do not begin at the lowest bit are not supported")


def _check_length(header: Any) -> None:
    """Refuse pixels that are more than the header says: taken for fewer columns, they would be sheared.

    Zeros at the end are padding, which some writers add up to whole blocks.
    """
    sides = ("Rows", "Columns", "BitsAllocated")
    rows, columns, bits = (read_integer(header, keyword, 0) for keyword in sides)
    samples, frames = (max(1, read_integer(header, keyword, 1)) for keyword in ("SamplesPerPixel", "NumberOfFrames"))
    said = (rows * columns * bits * samples * frames + 7) // 8
    if header.PixelData[said + said % 2 :].strip(b"\0"):
        raise ImageError("DICOM header and pixels differ in size")


def _fit_container(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return native byte order, and at most 16 bits."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if native.dtype.itemsize > 2:
        raise ImageError(f"{native.dtype.itemsize * 8}-bit samples, expected at most 16 bits")
    return native
