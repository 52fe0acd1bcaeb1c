"""The validation images on which the maps of a sweep are measured: the same ones for every model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softcam.data import Manifest
from softcam.evaluation.labels import Floats, Indices, to_strata
from softcam.evaluation.localization import measure_localization
from softcam.evaluation.subsamples import draw_stratified
from softcam.evaluation.truth import read_truth
from softcam.imaging import Preprocessing, decode_image


@dataclass(frozen=True, eq=False)
class Sample:
    """Images with what is asked of their maps.

    Args:
        rows: (M,) positions in the manifest.
        images: (M, C, S, S) network inputs.
        targets: (M,) class indices, or (M, K) of 0 and 1 where classes are independent.
        truth: (M, S, S) bool where their findings are; None where no image has any.
    """

    rows: Indices
    images: Tensor
    targets: Tensor
    truth: Tensor | None

    def localize(self, maps: Tensor) -> dict[str, Tensor]:
        """Return the localisation metrics, (M,) each, of maps (M, h, w); none where no findings are known."""
        return {} if self.truth is None else measure_localization(maps.cpu(), self.truth)


def draw_sample(manifest: Manifest, rows: Indices, preprocessing: Preprocessing, *, count: int, seed: int) -> Sample:
    """Return a seeded part of the images in which each label has its share; with findings alone, where there are any.

    Args:
        manifest: The images.
        rows: (N,) positions of those that can be read.
        preprocessing: How an image becomes an input.
        count: Images wanted, >= 1.
        seed: Of the draw.
    """
    targets = manifest.targets
    marked = _find_marked(manifest, rows)
    usable = rows if marked is None else marked
    chosen = usable[draw_stratified(to_strata(targets[usable].astype(np.int64)), count, seed=seed)]
    images = torch.stack([preprocessing(decode_image(manifest.paths[row]))[0] for row in chosen])
    found = [None if marked is None else read_truth(manifest, int(row), preprocessing) for row in chosen]
    truth = [mask for mask in found if mask is not None]
    labels = torch.from_numpy(targets[chosen])
    return Sample(chosen, images, labels, torch.stack(truth) if truth else None)


def average(values: Floats) -> float:
    """Return the mean of the defined values; NaN where there is none.

    Example:
        >>> average(np.array([1.0, np.nan, 3.0]))
        2.0
    """
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _find_marked(manifest: Manifest, rows: Indices) -> Indices | None:
    """Return the rows with findings, or None if there are fewer than two.

    Where classes are independent, a finding belongs to a label: images without any label have none to be asked about.
    """
    masks, boxes, targets = manifest.masks, manifest.boxes, manifest.targets
    marked = np.array([row for row in rows if masks[row] is not None or len(boxes[row])], dtype=np.int64)
    if targets.ndim == 2 and len(marked):
        marked = marked[targets[marked].any(axis=1)]
    return marked if len(marked) > 1 else None
