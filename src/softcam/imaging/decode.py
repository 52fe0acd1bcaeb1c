"""Untrusted bytes become pixels, or one short reason why not.

Only the decoders of PNG, JPEG, TIFF, BMP, WebP, GIF and DICOM ever run; the content decides which, not the file name.
Colour profiles are not applied.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from softcam.errors import ImageError, ImageTooLargeError, NotAnImageError
from softcam.imaging.dicom import count_dicom_frames, is_dicom, read_dicom
from softcam.imaging.image import DECODER_ERRORS, DEFAULT_LIMITS, DecodedImage, DecodeLimits, check_size

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")

_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr"})
_REDUCIBLE = frozenset({"JPEG", "MPO"})
_TURNED = frozenset({5, 6, 7, 8})  # orientations that exchange height and width
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0


def decode_image(
    source: str | Path | bytes,
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
    frame: int | None = None,
    least_side: int | None = None,
) -> DecodedImage:
    """Decode one image file safely.

    The EXIF orientation is applied. Transparent pixels are composited on black. Palettes and CMYK become RGB, bilevel
    images become 8-bit grey. 16-bit grey keeps its 16 bits, whatever its byte order (12-bit TIFF is stretched to them,
    min-is-white is inverted); 16-bit colour keeps the upper 8 bits. Floating-point TIFF is accepted where every value
    lies in [0, 1]. A file that holds several equal images (multi-page TIFF, animation) is refused, since any choice
    would be a guess; of a multi-picture JPEG the first, which is the photograph, is taken.

    DICOM is shown as a viewer shows it: rescaled to what the device measured, through the first table or window of
    values of interest (without one, over the range of up to 8 bits, and from the least to the greatest value of more),
    MONOCHROME1 as a negative, palettes and YBR as RGB, padding black, overlays not burned in. Of several frames one
    must be chosen. Nothing of the header but what describes pixels is read.

    Args:
        source: A path, or the file's bytes.
        limits: What the file may cost at most.
        frame: Which frame of a DICOM file, counted from 1; None for the only one.
        least_side: Shorter side, in pixels, to which a JPEG may be reduced: it is decoded at 1/2, 1/4 or 1/8, which
            takes a fraction of the time and averages neighbouring pixels. Other formats are never reduced.

    Returns:
        The upright pixels with the file's format and digest.

    Raises:
        ImageError: If this is not a usable image. The message is a short reason and names no path.
        MissingExtraError: If the file is DICOM and the libraries of the extra `dicom` are not installed.
        RuntimeError: If Pillow was told, process-wide, to pass truncated images off as whole.
        TypeError: If `source` is neither a path nor bytes.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "Expected `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` to be False, but got True. "
            "Reset it: truncated images would pass for whole ones."
        )
    content = _read(source, limits.max_bytes)
    if is_dicom(content):
        return read_dicom(content, limits=limits).decode(frame)
    if frame not in (None, 1):
        raise ImageError(f"frame {frame} of a file that is not DICOM")
    with _reasons(limits), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        check_size(image.width, image.height, limits)
        _check_single(image)
        reduction, size = (1, None) if least_side is None else _reduce(image, least_side)
        pixels = _to_pixels(image)
    digest = hashlib.sha256(content).hexdigest()
    return DecodedImage(pixels, str(image.format), digest, reduction=reduction, original_size=size)


def count_frames(source: str | Path | bytes | IO[bytes], *, limits: DecodeLimits = DEFAULT_LIMITS) -> int:
    """Return how many images a file holds that are chosen by number: the frames of a DICOM file, else 1.

    Args:
        source: A path, the file's bytes, or the open file at its beginning, of which no more than a header is read.
        limits: What the file may cost at most.

    Raises:
        ImageError: If the file cannot be read, or is DICOM that holds no picture.
        MissingExtraError: If the file is DICOM and pydicom is not installed.
        TypeError: If `source` is something else.
    """
    if isinstance(source, bytes):
        return _count_frames(io.BytesIO(source), limits)
    if not isinstance(source, str | Path) and hasattr(source, "read"):
        return _count_frames(source, limits)
    with _open(source) as stream:
        return _count_frames(stream, limits)


def image_from_array(array: npt.ArrayLike, *, limits: DecodeLimits = DEFAULT_LIMITS) -> DecodedImage:
    """Take an image that is already in memory; the array is copied.

    Args:
        array: (H, W), (H, W, 1) or (H, W, 3); uint8, uint16, or floating point in [0, 1], which is kept with 16 bits.
        limits: What the image may cost at most.

    Returns:
        The image; its digest is over type, shape and pixels.

    Raises:
        ImageError: If shape, size, type or values do not fit.

    Example:
        >>> image_from_array(np.zeros((4, 6), np.uint8)).width
        6
    """
    values = np.asarray(array)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] == 3):
        raise ImageError(f"array of shape {values.shape}, expected (H, W), (H, W, 1) or (H, W, 3)")
    check_size(values.shape[1], values.shape[0], limits)
    pixels = _to_integers(values)
    head = f"{pixels.dtype.name}{pixels.shape}".encode()
    return DecodedImage(pixels, "array", hashlib.sha256(head + pixels.tobytes()).hexdigest())


def _read(source: str | Path | bytes, max_bytes: int) -> bytes:
    content = source if isinstance(source, bytes) else _read_file(source, max_bytes)
    if not content:
        raise ImageError("file is empty")
    if len(content) > max_bytes:
        raise ImageTooLargeError(f"file is larger than {max_bytes} bytes")
    return content


def _count_frames(stream: IO[bytes], limits: DecodeLimits) -> int:
    start = stream.read(132)
    stream.seek(0)
    return count_dicom_frames(stream, limits=limits) if is_dicom(start) else 1


def _read_file(source: str | Path, max_bytes: int) -> bytes:
    with _open(source) as stream:
        return stream.read(max_bytes + 1)


@contextmanager
def _open(source: object) -> Iterator[IO[bytes]]:
    if not isinstance(source, str | Path):
        raise TypeError(f"Expected `source` to be a path or bytes, but got {type(source).__name__}.")
    path = Path(source)
    try:
        # A pipe or a device could block or never end, so it is not even opened.
        if path.exists() and not path.is_file():
            raise ImageError("not a regular file")
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise ImageError("file not found") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"file cannot be read: {(reason or 'invalid name').lower()}") from None


@contextmanager
def _reasons(limits: DecodeLimits) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError; Pillow's own texts may show addresses or content."""
    try:
        yield
    except _BOMB_ERRORS:
        least = (Image.MAX_IMAGE_PIXELS or 0) + 1
        raise ImageTooLargeError(f"more than {limits.max_pixels} pixels", pixels=least) from None
    except UnidentifiedImageError:
        raise NotAnImageError("not a readable PNG, JPEG, TIFF, BMP, WebP, GIF or DICOM image") from None
    except DECODER_ERRORS as error:
        raise ImageError("image data are truncated or damaged") from error


def _check_single(image: Image.Image) -> None:
    # The further pictures of an MPO, which is what phones write under the name of JPEG, are previews of the first.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError(f"{image.format} file with more than one image")


def _reduce(image: ImageFile.ImageFile, least_side: int) -> tuple[int, tuple[int, int] | None]:
    """Let a JPEG be decoded at the smallest scale that suffices; return how much smaller, and its upright full size."""
    width, height = image.size
    factor = next((factor for factor in (8, 4, 2) if min(width, height) >= factor * least_side), 1)
    if image.format not in _REDUCIBLE or factor == 1:
        return 1, None
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
    if image.draft(image.mode, (width // factor, height // factor)) is None:
        return 1, None
    return factor, (width, height) if turned else (height, width)


def _to_pixels(image: ImageFile.ImageFile) -> npt.NDArray[Any]:
    tags = dict(getattr(image, "tag_v2", {}))
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):
        return _grey16(np.asarray(image).astype(np.uint16), tags)
    if image.mode in {"I", "F"}:
        return _to_integers(np.asarray(image))
    return _eight_bits(image)


def _grey16(pixels: npt.NDArray[np.uint16], tags: dict[int, Any]) -> npt.NDArray[np.uint16]:
    """Stretch and invert what Pillow hands over as stored."""
    if tags.get(_TIFF_BITS) == (12,):
        pixels = pixels * np.uint16(16) + pixels // np.uint16(256)
    if tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO:
        pixels = np.invert(pixels)
    return pixels


def _eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    grey = image.mode in _GREY_MODES
    if not grey and image.mode not in _COLOUR_MODES:
        raise ImageError(f"{image.mode} pixels are not supported")
    if not image.has_transparency_data:
        mode = "L" if grey else "RGB"
        return np.asarray(image if image.mode == mode else image.convert(mode))
    # Premultiplied by alpha is the same as composited on black.
    premultiplied = image.convert("LA").convert("La") if grey else image.convert("RGBA").convert("RGBa")
    pixels = np.asarray(premultiplied)
    return pixels[..., 0] if grey else pixels[..., :3]


def _to_integers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy, uint8 and uint16 as they are and floats in [0, 1] as uint16; refuse the rest."""
    native = values.dtype.newbyteorder("=")
    if native in (np.uint8, np.uint16):
        return values.astype(native)
    if not np.issubdtype(values.dtype, np.floating):
        raise ImageError(f"{values.dtype.name} pixels, which have no known full scale")
    if not np.isfinite(values).all():
        raise ImageError("pixels hold NaN or infinity")
    if values.min() < 0 or values.max() > 1:
        raise ImageError("floating-point pixels outside [0, 1], which have no known full scale")
    return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)
