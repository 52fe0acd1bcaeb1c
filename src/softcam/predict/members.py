"""What the members of an ensemble say of one image, each for itself: where they agree, and where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from softcam.nn import Evidence
from softcam.nn.ensemble import align

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Members:
    """The evidence of each member, on the grid of the ensemble; the means are the prediction's.

    Standard deviations are those of a sample: divided by the number of members less one.

    Args:
        logits: (M, K).
        maps: (M, K, h, w).
    """

    logits: Array
    maps: Array

    def __len__(self) -> int:
        return len(self.logits)

    def deviate_logits(self) -> Array:
        """Return the standard deviation of each class's logit, (K,)."""
        return _deviate(self.logits)

    def deviate_maps(self) -> Array:
        """Return that of each cell, (K, h, w)."""
        return _deviate(self.maps)

    def deviate_margin(self, shown: int, rival: int | None) -> tuple[float, Array]:
        """Return the standard deviation of a class's lead over another one, and of the cells (h, w) of their margin.

        What moves both classes alike changes no decision between them, and is not in it.

        Args:
            shown: Index of the class.
            rival: Index of the other; None for the class alone.
        """
        logits, maps = self.logits[:, shown], self.maps[:, shown]
        if rival is not None:
            logits, maps = logits - self.logits[:, rival], maps - self.maps[:, rival]
        return float(_deviate(logits)), _deviate(maps)


def split_members(answers: Sequence[Evidence]) -> list[Members | None]:
    """Return what each member says of each image of a batch; None of a single model.

    Args:
        answers: One per member, of the same images.
    """
    if len(answers) == 1:
        return [None] * len(answers[0])
    aligned = align(answers)
    logits, maps = (
        torch.stack([getattr(answer, name) for answer in aligned], dim=1).float().cpu().numpy()
        for name in ("logits", "maps")
    )
    # Copies, so that keeping one prediction does not keep its batch.
    return [Members(*(part.copy() for part in pair)) for pair in zip(logits, maps, strict=True)]


def _deviate(values: Array) -> Array:
    return np.asarray(values.std(axis=0, ddof=1, dtype=np.float64), np.float32)
