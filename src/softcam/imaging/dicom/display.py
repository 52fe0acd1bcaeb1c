"""From stored values to what a viewer shows: modality values, then values of interest, then grey or colour.

Grey values have at most 16 bits, so every step is done once for each possible value, and the picture is a look-up in
the resulting table.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.errors import ImageError
from softcam.imaging.dicom.header import read_integer, read_value
from softcam.imaging.dicom.palette import read_lookup_table, read_palette

Floats = npt.NDArray[np.float64]
Shown = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_WHITE = 65535
_STEP = 257  # from one 8-bit value to the next, with 16 bits


def show(values: npt.NDArray[Any], header: Any) -> Shown:
    """Return the picture of one frame.

    Args:
        values: (H, W) or (H, W, 3) stored pixels, as `read_pixels` returns them.
        header: What describes them, with what holds for this frame alone.

    Returns:
        (H, W) grey or (H, W, 3) RGB; uint8 where that loses nothing, else uint16; 0 is black.

    Raises:
        ImageError: If a table or a window cannot be used.
    """
    if read_value(header, "PhotometricInterpretation") == "PALETTE COLOR":
        return _narrow(read_palette(header).apply(values))
    stored = _list_values(values.dtype)
    if values.ndim == 3:
        return _look_up(values, _quantize(_spread(stored, *_declared_range(header))))
    return _look_up(values, _shade(values, stored, header))


def _list_values(kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return every value of a type, in the order in which the values index: negative ones from the end."""
    unsigned = np.dtype(f"u{kind.itemsize}")
    return np.arange(2 ** (8 * kind.itemsize)).astype(unsigned).view(kind)


def _look_up(values: npt.NDArray[Any], shades: npt.NDArray[np.uint16]) -> Shown:
    """Return the picture by the shade of every value."""
    table = _narrow(shades)
    if values.dtype == np.uint8 == table.dtype and np.array_equal(table, np.arange(256)):
        return values
    return table.take(values)


def _narrow(values: npt.NDArray[Any]) -> Shown:
    """Return 8 bits where every value is one of 8 bits spread over 16."""
    if values.dtype == np.uint16 and not (values % _STEP).any():
        return (values // _STEP).astype(np.uint8)
    return values


def _quantize(brightness: Floats) -> npt.NDArray[np.uint16]:
    return np.rint(brightness * _WHITE).astype(np.uint16)


def _shade(values: npt.NDArray[Any], stored: npt.NDArray[Any], header: Any) -> npt.NDArray[np.uint16]:
    """Return how bright each stored value is shown, with 16 bits."""
    padding = _find_padding(stored, header)
    modality = _to_modality(stored, header)
    shown = _apply_voi(modality, header)
    if shown is None:
        shown = _spread(modality, *_find_range(values, modality, padding, header))
    shades = _quantize(shown)
    if _is_negative(header):
        shades = _WHITE - shades
    # What pads an image to a rectangle belongs to no contrast, and is background in a negative as well.
    shades[padding] = 0
    return shades


def _is_negative(header: Any) -> bool:
    kind, shape = read_value(header, "PhotometricInterpretation"), read_value(header, "PresentationLUTShape")
    return bool(kind == "MONOCHROME1" or shape == "INVERSE")


def _find_padding(stored: npt.NDArray[Any], header: Any) -> npt.NDArray[np.bool_]:
    if read_value(header, "PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    first = read_integer(header, "PixelPaddingValue")
    last = read_integer(header, "PixelPaddingRangeLimit", first)
    # The tag's own type need not be that of the pixels: 63536 is -2000 where they are signed.
    limits = np.array([first, last]).astype(stored.dtype)
    return np.asarray((stored >= limits.min()) & (stored <= limits.max()))


def _to_modality(stored: npt.NDArray[Any], header: Any) -> Floats:
    """Return stored values as what the device measured, such as Hounsfield units."""
    if items := read_value(header, "ModalityLUTSequence"):
        return read_lookup_table(items[0], little=_is_little(header)).apply(stored).astype(np.float64)
    slope, intercept = (_read_number(header, f"Rescale{name}") for name in ("Slope", "Intercept"))
    values = stored.astype(np.float64)
    return values if slope is None or intercept is None else values * slope + intercept


def _apply_voi(modality: Floats, header: Any) -> Floats | None:
    """Return the brightness by the first table or the first window; None where the file has neither."""
    if items := read_value(header, "VOILUTSequence"):
        table = read_lookup_table(items[0], little=_is_little(header))
        shown: Floats = np.clip(table.apply(modality) / (2**table.bits - 1), 0, 1)
        return shown
    center, width = (_read_number(header, f"Window{name}") for name in ("Center", "Width"))
    if center is None or width is None or width <= 0:
        return None
    return _apply_window(modality, center, width, str(read_value(header, "VOILUTFunction") or "LINEAR").upper())


def _apply_window(modality: Floats, center: float, width: float, function: str) -> Floats:
    """Return the brightness by a window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        # Beyond this the function is 0 or 1 to the last bit, and its exponential would overflow.
        return 1 / (1 + np.exp(np.clip(-4 * (modality - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((modality - center) / width + 0.5, 0, 1)
    if function != "LINEAR":
        raise ImageError("DICOM element VOILUTFunction is unknown")
    if width <= 1:
        return (modality > center - 0.5).astype(np.float64)
    return np.clip((modality - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _find_range(
    values: npt.NDArray[Any], modality: Floats, padding: npt.NDArray[np.bool_], header: Any
) -> tuple[float, float]:
    """Return the modality values of black and white where the file says nothing about them.

    Up to 8 bits, all that the bits can hold, as in any other 8-bit file. Otherwise the least and the greatest value of
    the frame, as viewers do: of 16 bits, devices use a small part that differs from one to the next.
    """
    if read_integer(header, "BitsStored") <= 8:
        low, high = (modality[value] for value in _declared_range(header))
    else:
        used = np.zeros(len(modality), bool)
        used[values] = True
        used &= ~padding
        low, high = (modality[used].min(), modality[used].max()) if used.any() else (0.0, 1.0)
    # A falling modality turns dark into bright; the values of interest do not.
    return min(low, high), max(low, high)


def _declared_range(header: Any) -> tuple[int, int]:
    """Return the least and the greatest stored value that the header allows."""
    bits = read_integer(header, "BitsStored")
    if read_integer(header, "PixelRepresentation", 0):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _spread(values: npt.NDArray[Any], low: float, high: float) -> Floats:
    """Return values from `low` to `high` as 0 to 1; all 0 where the two are the same."""
    if not low < high:
        return np.zeros(values.shape)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)


def _read_number(header: Any, keyword: str) -> float | None:
    """Return the first value of an element, None where there is none."""
    value = read_value(header, keyword)
    try:
        first = float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
    except TypeError:
        return None
    except (ValueError, OverflowError):
        raise ImageError(f"DICOM element {keyword} is no number") from None
    if not math.isfinite(first):
        raise ImageError(f"DICOM element {keyword} is not finite")
    return first


def _is_little(header: Any) -> bool:
    return header.original_encoding[1] is not False
