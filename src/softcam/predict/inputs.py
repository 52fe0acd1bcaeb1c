"""What a predictor is fed with, and what it makes of that before the model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from softcam.errors import ImageError, MissingExtraError
from softcam.imaging import DecodedImage, Geometry, Preprocessing, decode_image, image_from_array
from softcam.predict.prediction import Prediction


@runtime_checkable
class Readable(Protocol):
    """An image that is read when its turn comes, such as one frame of a file or one member of an archive."""

    @property
    def id(self) -> str:
        """Name of the image, for the prediction."""

    def decode(self) -> DecodedImage:
        """Return the image; called in a worker thread. Raises `ImageError` where that is not possible."""


Source = str | Path | bytes | npt.NDArray[Any] | DecodedImage | Readable


class Outcome(NamedTuple):
    """A prediction with the image it is about.

    Args:
        prediction: What the model says.
        image: The upright original; None if it failed, was too large to keep or was decoded at a part of its size.
    """

    prediction: Prediction
    image: DecodedImage | None


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An input on its way to the model.

    Args:
        id: Name of the image, for the prediction.
        position: Its place among the inputs, from 0.
        tensor: The network's input (C, H, W) float32, on the CPU; None if the image could not be read.
        geometry: From the network's input to the original; None if it could not be read.
        image: The original, where it is kept.
        digest: SHA-256 of the input's bytes.
        spacing: Distance of the original's pixels in millimetres, where known.
        reason: Why it could not be read; empty if it could.
        channels: What the original held: 1 for grey, 3 for colour, 0 if not known.
        bits: Of the original, per channel; 0 if not known.
    """

    id: str
    position: int = 0
    tensor: Tensor | None = None
    geometry: Geometry | None = None
    image: DecodedImage | None = None
    digest: str = ""
    spacing: tuple[float, float] | None = None
    reason: str = ""
    channels: int = 0
    bits: int = 0


def prepare(position: int, source: Source, preprocessing: Preprocessing, keep_bytes: int) -> PreparedImage:
    """Return an input as the network sees it; what cannot be read has a reason.

    Args:
        position: Its place among the inputs, from 0.
        source: The input.
        preprocessing: How an image becomes the network's input.
        keep_bytes: Largest image, in bytes of pixels, that is kept; reduced ones are never kept.

    Raises:
        TypeError: If the input is of another type.
    """
    name = _name(position, source)
    try:
        image = _decode(source)
    except (ImageError, MissingExtraError) as error:
        return PreparedImage(name, position, reason=str(error))
    except OSError as error:
        return PreparedImage(name, position, reason=(error.strerror or type(error).__name__).lower())
    tensor, geometry = preprocessing(image)
    kept = image if image.reduction == 1 and image.pixels.nbytes <= keep_bytes else None
    return PreparedImage(
        name,
        position,
        tensor,
        geometry,
        kept,
        image.digest,
        image.spacing,
        channels=image.channels,
        bits=image.bits,
    )


def _name(position: int, source: Source) -> str:
    if isinstance(source, str | Path):
        return str(source)
    return source.id if isinstance(source, Readable) else f"input-{position}"


def _decode(source: Source) -> DecodedImage:
    if isinstance(source, DecodedImage):
        return source
    if isinstance(source, Readable):
        return source.decode()
    if isinstance(source, str | Path | bytes):
        return decode_image(source)
    if isinstance(source, np.ndarray):
        return image_from_array(source)
    raise TypeError(f"Expected inputs to be paths, bytes, arrays or decoded images, but got {type(source).__name__}.")
