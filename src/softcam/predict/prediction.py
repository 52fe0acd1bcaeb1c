"""One image's prediction, with the evidence that it is the sum of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from softcam.imaging import Geometry

Array = npt.NDArray[np.float32]


def _empty(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image, or the reason why it could not be asked.

    Args:
        id: The input's path as it was given or its own name, or `input-<position>` where there is none.
        status: `ok` or `failed`; a failed prediction has empty arrays.
        classes: Class names in the order of the arrays.
        reason: Why it failed; empty if it did not.
        predicted: The reported class, see `choose_class`; several labels are joined by `;`. None if failed.
        probabilities: (K,) in [0, 1].
        logits: (K,).
        maps: (K, h, w) signed evidence in logit units; the spatial mean is `logits`.
        geometry: From the network's input, which the maps tile evenly, to the original image. None if failed.
        sum_error: Measured relative error of "the mean of the maps is the logits"; NaN if failed.
        digest: SHA-256 of the input's bytes; empty if it could not be read.
        spacing: Distance of the original's pixels in millimetres, between rows and between columns, where known.
        multi_label: Whether classes are independent rather than exclusive.
    """

    id: str
    status: Literal["ok", "failed"]
    classes: tuple[str, ...]
    reason: str = ""
    predicted: str | None = None
    probabilities: Array = field(default_factory=lambda: _empty(0))
    logits: Array = field(default_factory=lambda: _empty(0))
    maps: Array = field(default_factory=lambda: _empty(0, 0, 0))
    geometry: Geometry | None = None
    sum_error: float = math.nan
    digest: str = ""
    spacing: tuple[float, float] | None = None
    multi_label: bool = False

    @property
    def contrast(self) -> tuple[int, int | None]:
        """Indices of the class to explain and of its strongest rival; no rival where classes are independent.

        Raises:
            ValueError: If the prediction failed.
        """
        if self.status == "failed":
            raise ValueError("Expected a prediction with status 'ok', but got a failed one. Look at `reason`.")
        if self.multi_label or len(self.classes) == 1:
            return int(self.logits.argmax()), None
        shown = self.classes.index(self.predicted) if self.predicted is not None else int(self.logits.argmax())
        rivals = np.where(np.arange(len(self.classes)) == shown, -np.inf, self.logits)
        return shown, int(rivals.argmax())

    def margin(self) -> Array:
        """Return the evidence (h, w) for the predicted class against its rival; it averages to the logit difference.

        Where classes are independent, the map of the highest logit, which averages to that logit.

        Raises:
            ValueError: If the prediction failed.
        """
        shown, rival = self.contrast
        difference: Array = self.maps[shown] - (0 if rival is None else self.maps[rival])
        return difference


def choose_class(
    probabilities: npt.NDArray[np.floating],
    classes: Sequence[str],
    *,
    thresholds: Mapping[str, float],
    multi_label: bool = False,
) -> str:
    """Return the class to report.

    Independent classes: every one that reaches its threshold (default 0.5), joined by `;`, possibly none. Two exclusive
    classes with a threshold for the second: the second if it reaches it, else the first. Otherwise the most probable.

    Args:
        probabilities: (K,) in [0, 1].
        classes: K names.
        thresholds: Probability from which a class is reported, by name.
        multi_label: Whether classes are independent.

    Example:
        >>> choose_class(np.array([0.7, 0.3]), ["intact", "defect"], thresholds={"defect": 0.25})
        'defect'
    """
    if multi_label:
        pairs = zip(classes, probabilities, strict=True)
        return ";".join(name for name, value in pairs if value >= thresholds.get(name, 0.5))
    threshold = thresholds.get(classes[1]) if len(classes) == 2 else None
    return classes[int(decide(probabilities, threshold))]


def decide(probabilities: npt.NDArray[np.floating], threshold: float | None) -> npt.NDArray[np.int64]:
    """Return which of K exclusive classes is reported.

    Args:
        probabilities: (..., K) in [0, 1].
        threshold: For K = 2, the probability from which the second class is reported; None for the most probable.

    Returns:
        (...) class indices.

    Example:
        >>> decide(np.array([[0.6, 0.4], [0.8, 0.2]]), 0.3).tolist()
        [1, 0]
    """
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=-1), np.int64)
    return np.asarray(probabilities[..., 1] >= threshold, np.int64)
