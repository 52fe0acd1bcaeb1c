"""Where the findings are: masks and boxes of a manifest, as the network sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.data.manifest import Manifest
from softcam.errors import ImageError
from softcam.evaluation.images import Failure
from softcam.imaging import Preprocessing, decode_image


def has_truth(manifest: Manifest) -> bool:
    """Return whether any image comes with a mask or a box."""
    return any(mask is not None for mask in manifest.masks) or any(len(boxes) for boxes in manifest.boxes)


@dataclass(frozen=True, eq=False)
class Findings:
    """Where the findings of some images are.

    Args:
        truth: By position in the manifest, (S, S) bool; images without mask and box are not among them.
        failures: Masks that could not be read.
    """

    truth: Mapping[int, Tensor]
    failures: tuple[Failure, ...] = ()

    def of(self, rows: Iterable[int], labels: Tensor, explained: Tensor) -> Tensor | None:
        """Return the findings (N, S, S) of images, empty where none are to be found; None if no image has any.

        Args:
            rows: (N,) positions in the manifest.
            labels: (N,) classes that the findings belong to, or (N, K) of 0 and 1 where an image has several.
            explained: (N,) classes that the maps are of: a map of a class that the image does not have has nothing to
                find.
        """
        if not self.truth:
            return None
        explained = explained.cpu()
        sought = labels.gather(1, explained[:, None])[:, 0] > 0 if labels.ndim == 2 else labels == explained
        nothing = torch.zeros_like(next(iter(self.truth.values())))
        pairs = zip(rows, sought.tolist(), strict=True)
        return torch.stack([self.truth.get(int(row), nothing) if found else nothing for row, found in pairs])


def read_findings(manifest: Manifest, rows: Iterable[int], preprocessing: Preprocessing) -> Findings:
    """Read masks and boxes of images; masks that are no usable images are named and left out.

    Args:
        manifest: The images.
        rows: Positions in the manifest.
        preprocessing: How an image becomes an input.
    """
    truth, failures = dict[int, Tensor](), []
    for row in rows if has_truth(manifest) else ():
        try:
            found = read_truth(manifest, row, preprocessing)
        except ImageError as error:
            failures.append(Failure(manifest.cell(row, "mask") or manifest.cell(row, "image"), str(error)))
            continue
        if found is not None:
            truth[row] = found
    return Findings(truth, tuple(failures))


def read_truth(manifest: Manifest, row: int, preprocessing: Preprocessing) -> Tensor | None:
    """Return the findings in one image, (S, S) bool, or None where the table has neither mask nor box of it.

    Args:
        manifest: Masks are grey or colour images, as large as the image itself, in which the findings are not black;
            boxes are added to them.
        row: Position in the manifest.
        preprocessing: How the image becomes an input.

    Raises:
        ImageError: If the mask, or the image that it belongs to, is not a usable image, or if their sizes differ.
    """
    mask, boxes = manifest.masks[row], manifest.boxes[row]
    if mask is None and not len(boxes):
        return None
    image = decode_image(manifest.paths[row])
    truth = np.zeros((image.height, image.width), dtype=bool)
    if mask is not None:
        marked = np.asarray(np.atleast_3d(decode_image(mask).pixels).any(axis=2))
        if marked.shape != truth.shape:
            raise ImageError(
                f"the mask has {marked.shape[1]} x {marked.shape[0]} px, its image {image.width} x {image.height}"
            )
        truth = marked
    return preprocessing.resize_mask(_draw(truth, boxes))


def _draw(truth: NDArray[np.bool_], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    drawn = truth.copy()
    for left, top, width, height in boxes:
        rows, columns = _span(top, height), _span(left, width)
        drawn[rows, columns] = True
    return drawn


def _span(start: float, length: float) -> slice:
    return slice(int(np.floor(start)), int(np.ceil(start + length)))
