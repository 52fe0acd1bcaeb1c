"""Where the findings are: masks and boxes of a manifest, as the network sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from softcam.data.manifest import Manifest
from softcam.imaging import Preprocessing, decode_image


def has_truth(manifest: Manifest) -> bool:
    """Return whether any image comes with a mask or a box."""
    return any(mask is not None for mask in manifest.masks) or any(len(boxes) for boxes in manifest.boxes)


def read_truth(manifest: Manifest, row: int, preprocessing: Preprocessing) -> Tensor | None:
    """Return the findings in one image, (S, S) bool, or None where the table has neither mask nor box of it.

    Args:
        manifest: Masks are grey or colour images in which the findings are not black; boxes are added to them.
        row: Position in the manifest.
        preprocessing: How the image becomes an input.

    Raises:
        ImageError: If the mask, or the image that boxes refer to, is not a usable image.
    """
    mask, boxes = manifest.masks[row], manifest.boxes[row]
    if mask is None and not len(boxes):
        return None
    if mask is not None:
        truth = np.asarray(np.atleast_3d(decode_image(mask).pixels).any(axis=2))
    else:
        image = decode_image(manifest.paths[row])
        truth = np.zeros((image.height, image.width), dtype=bool)
    return preprocessing.resize_mask(_draw(truth, boxes))


def _draw(truth: NDArray[np.bool_], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    drawn = truth.copy()
    for left, top, width, height in boxes:
        rows, columns = _span(top, height), _span(left, width)
        drawn[rows, columns] = True
    return drawn


def _span(start: float, length: float) -> slice:
    return slice(int(np.floor(start)), int(np.ceil(start + length)))
