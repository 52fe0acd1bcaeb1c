"""A decoded image, what decoding may cost, and what decoders raise."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from softcam.errors import ImageError, ImageTooLargeError

# What decoders are known to raise on damaged bytes. RuntimeError stands for NotImplementedError and RecursionError as
# well; Warning is met when the user turned warnings into errors.
DECODER_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, Warning, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class DecodeLimits:
    """What an image file may cost at most.

    Args:
        max_pixels: Height times width, checked before any pixel is decoded. Pillow's own bomb check stays in force.
        max_bytes: Size of the encoded file, and of what a compressed header or archive member unpacks to.
        min_side: Least height and width in pixels.
        max_frames: Images in one file.

    Raises:
        ValueError: If a limit is below 1.
    """

    max_pixels: int = 89_478_485
    max_bytes: int = 512 * 1024 * 1024
    min_side: int = 2
    max_frames: int = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) < 1:
                raise ValueError(f"Expected `{field.name}` to be at least 1, but got {value}.")


DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An upright image as it was stored, grey or RGB, 8 or 16 bits.

    Args:
        pixels: (H, W) grey or (H, W, 3) RGB, uint8 or uint16, read-only; 0 is black, the type's maximum is white.
        format: The file format that was found ("PNG", "JPEG", "DICOM", ...), or "array".
        digest: SHA-256 of the file's bytes, or of the pixels of an array, in hexadecimal.
        spacing: Distance of pixels in millimetres, between rows and between columns; None where the file has none.
        frame: Which image of a file that holds several, counted from 1; None where it holds one.
        reduction: How many pixels of the original, along each axis, one of `pixels` stands for: 1, or 2, 4 or 8 where a
            JPEG was decoded at a part of its size.
        original_size: Height and width of the upright original; default: those of `pixels`.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    format: str
    digest: str
    spacing: tuple[float, float] | None = None
    frame: int | None = None
    reduction: int = 1
    original_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # A slice is made contiguous here, once, rather than at every resize.
        object.__setattr__(self, "pixels", np.ascontiguousarray(self.pixels))
        self.pixels.setflags(write=False)

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width of the upright original in pixels."""
        return self.original_size or (self.height, self.width)

    @property
    def height(self) -> int:
        """Height of `pixels`: that of the upright original where `reduction` is 1."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width of `pixels`: that of the upright original where `reduction` is 1."""
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.pixels.ndim == 2 else 3

    @property
    def bits(self) -> int:
        """Of each channel, 8 or 16."""
        return 8 * self.pixels.dtype.itemsize

    def to_float(self) -> npt.NDArray[np.float32]:
        """Return the pixels as (H, W, C) float32 in [0, 1], with C = 1 for grey and 3 for RGB."""
        scale = np.float32(np.iinfo(self.pixels.dtype).max)
        return self.pixels.reshape(self.height, self.width, -1).astype(np.float32) / scale

    def to_rgb8(self) -> npt.NDArray[np.uint8]:
        """Return the pixels as (H, W, 3) uint8 for display; 16-bit values are rounded to 8 bits."""
        pixels = np.atleast_3d(self.pixels)
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(pixels, (self.height, self.width, 3)), dtype=np.uint8)


def check_size(width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse an image that is too large or too small, before any pixel is decoded.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        limits: What the image may cost at most.

    Raises:
        ImageError: If it is.
    """
    if width * height > limits.max_pixels:
        reason = f"{width}x{height} is more than {limits.max_pixels} pixels"
        raise ImageTooLargeError(reason, pixels=width * height)
    if min(width, height) < limits.min_side:
        raise ImageError(f"{width}x{height} pixels, expected at least {limits.min_side} on each side")
