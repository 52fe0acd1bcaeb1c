"""Images of a manifest as batches; files that are no usable images are named and left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.data.manifest import Manifest
from softcam.errors import ImageError
from softcam.imaging import Geometry, Preprocessing, decode_image

_DECODERS = 2


class Failure(NamedTuple):
    """A file that is not a usable image."""

    image: str
    reason: str


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images that could be read, and those that could not.

    Args:
        rows: (N,) positions in the manifest of the images that were read.
        images: (N, C, S, S), normalised.
        failures: The others.
    """

    rows: NDArray[np.int64]
    images: Tensor
    failures: tuple[Failure, ...]


@dataclass(frozen=True, eq=False)
class Shown:
    """One image as the network saw it.

    Args:
        image: (C, S, S), in [0, 1].
        geometry: Where the input lies in the original.
    """

    image: Tensor
    geometry: Geometry


def read_image(manifest: Manifest, row: int, preprocessing: Preprocessing) -> Shown:
    """Decode and resize the image of one row.

    Raises:
        ImageError: If the file is not a usable image.
    """
    return Shown(*preprocessing.resize(decode_image(manifest.paths[row])))


def read_batches(
    manifest: Manifest, rows: Sequence[int], preprocessing: Preprocessing, *, batch_size: int
) -> Iterator[ImageBatch]:
    """Read images batch by batch; while one batch is used the next is decoded.

    Args:
        manifest: The images.
        rows: Positions in the manifest, in the order wanted.
        preprocessing: How an image becomes an input.
        batch_size: Files per batch; batches with failures hold fewer images, possibly none.

    Yields:
        One batch per `batch_size` rows.
    """
    paths = manifest.paths

    def read(row: int) -> Tensor | ImageError:
        try:
            return preprocessing(decode_image(paths[row]))[0]
        except ImageError as error:
            return error

    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with ThreadPoolExecutor(_DECODERS) as pool:
        ahead: list[Future[Tensor | ImageError]] = []
        for position, chunk in enumerate(chunks):
            current = ahead or [pool.submit(read, row) for row in chunk]
            following = chunks[position + 1] if position + 1 < len(chunks) else ()
            ahead = [pool.submit(read, row) for row in following]
            yield _collect(manifest, chunk, (future.result() for future in current))


def _collect(manifest: Manifest, rows: Sequence[int], results: Iterable[Tensor | ImageError]) -> ImageBatch:
    pairs = list(zip(rows, results, strict=True))
    images = [(row, image) for row, image in pairs if isinstance(image, Tensor)]
    failures = tuple(
        Failure(manifest.cell(row, "image"), str(error)) for row, error in pairs if isinstance(error, ImageError)
    )
    stacked = torch.stack([image for _, image in images]) if images else torch.empty(0)
    return ImageBatch(np.asarray([row for row, _ in images], dtype=np.int64), stacked, failures)
