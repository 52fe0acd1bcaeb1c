"""Where the findings are: masks and boxes of a manifest, as the network sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.data.boxes import parse_boxes
from softcam.data.manifest import Manifest
from softcam.errors import ImageError
from softcam.evaluation.images import Failure
from softcam.imaging import Preprocessing, decode_image


def has_truth(manifest: Manifest, rows: Iterable[int] | None = None) -> bool:
    """Return whether any image comes with a mask or a box; no file is read.

    Args:
        manifest: The images.
        rows: Positions of those that are asked about; None for all.
    """
    asked = range(len(manifest)) if rows is None else rows
    return any(manifest.cell(row, "mask") or len(parse_boxes(manifest.cell(row, "boxes"))) for row in asked)


@dataclass(frozen=True, eq=False)
class Findings:
    """Where the findings of some images are.

    Args:
        truth: By position in the manifest, (S, S) bool; images without mask and box are not among them.
        failures: Masks that could not be read.
        side: S, where these are some of the images of a comparison in which others have findings, so that those
            without any have empty ones; None where the others do not count.
    """

    truth: Mapping[int, Tensor]
    failures: tuple[Failure, ...] = ()
    side: int | None = None

    def of(self, rows: Iterable[int], labels: Tensor, explained: Tensor) -> Tensor | None:
        """Return the findings (N, S, S) of images, empty where none are to be found; None if no image has any.

        With `side` it is never None.

        Args:
            rows: (N,) positions in the manifest.
            labels: (N,) classes that the findings belong to, or (N, K) of 0 and 1 where an image has several.
            explained: (N,) classes that the maps are of: a map of a class that the image does not have has nothing to
                find.
        """
        if self.side is None and not self.truth:
            return None
        explained = explained.cpu()
        sought = labels.gather(1, explained[:, None])[:, 0] > 0 if labels.ndim == 2 else labels == explained
        side = self.side or len(next(iter(self.truth.values())))
        nothing = torch.zeros(side, side, dtype=torch.bool)
        pairs = zip(rows, sought.tolist(), strict=True)
        return torch.stack([self.truth.get(int(row), nothing) if found else nothing for row, found in pairs])


def read_findings(
    manifest: Manifest, rows: Iterable[int], preprocessing: Preprocessing, *, side: int | None = None
) -> Findings:
    """Read masks and boxes of images; masks that are no usable images are named and left out.

    Args:
        manifest: The images.
        rows: Positions in the manifest.
        preprocessing: How an image becomes an input.
        side: As `Findings` has it.
    """
    truth, failures = dict[int, Tensor](), []
    for row in map(int, rows):
        try:
            found = read_truth(manifest, row, preprocessing)
        except ImageError as error:
            failures.append(Failure(manifest.cell(row, "mask") or manifest.cell(row, "image"), str(error)))
            continue
        if found is not None:
            truth[row] = found
    return Findings(truth, tuple(failures), side)


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
    # Cell by cell: the manifest's own lists are those of all images.
    mask, boxes = manifest.cell(row, "mask"), parse_boxes(manifest.cell(row, "boxes"))
    if not mask and not len(boxes):
        return None
    image = decode_image(manifest.root / manifest.cell(row, "image"))
    truth = np.zeros((image.height, image.width), dtype=bool)
    if mask:
        marked = np.asarray(np.atleast_3d(decode_image(manifest.root / mask).pixels).any(axis=2))
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
