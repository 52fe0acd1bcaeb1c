"""From raw logits to probabilities that were calibrated, and to sets of classes with a promised coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from softcam.bundle import Calibration
from softcam.metrics import prediction_sets, scale_probabilities
from softcam.nn import Evidence

Floats = npt.NDArray[np.float32]
Sets = list[tuple[str, ...]]


@dataclass(frozen=True)
class Uncertainty:
    """How a model's logits become probabilities and prediction sets.

    Args:
        classes: Class names in the order of the logits.
        calibration: What `softcam calibrate` chose; None for a model that was not calibrated.
        multi_label: Whether classes are independent rather than exclusive.
    """

    classes: tuple[str, ...]
    calibration: Calibration | None = None
    multi_label: bool = False

    @property
    def temperature(self) -> float | None:
        """What logits are divided by; None for a model that was not calibrated."""
        return None if self.calibration is None else self.calibration.temperature

    @property
    def has_sets(self) -> bool:
        """Whether predictions have sets of classes."""
        return self.calibration is not None and self.calibration.has_sets

    @property
    def identity(self) -> dict[str, Any]:
        """All of it that decides predictions, as JSON gives it back; empty for a model that was not calibrated."""
        if self.calibration is None:
            return {}
        return {
            "calibration": {name: getattr(self.calibration, name) for name in ("temperature", "method", "quantile")}
        }

    def __call__(self, evidence: Evidence) -> tuple[Floats, Sets | None]:
        """Return probabilities (N, K) and, where there are any, a set of class names per image.

        Args:
            evidence: Finite logits; nothing of it is changed.
        """
        probabilities, members = self.measure(evidence)
        if members is None:
            return probabilities.astype(np.float32), None
        order = np.argsort(-probabilities, axis=1, kind="stable")
        pairs = zip(members, order, strict=True)
        sets = [tuple(self.classes[index] for index in ranks if row[index]) for row, ranks in pairs]
        return probabilities.astype(np.float32), sets

    def measure(self, evidence: Evidence) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
        """Return probabilities and, where there are sets, which classes are in that of each image, both (N, K).

        Args:
            evidence: Finite logits; nothing of it is changed.
        """
        if self.calibration is None:
            return _to_numpy(evidence.probabilities().float().double()), None
        temperature, quantile = self.calibration.temperature, self.calibration.quantile
        logits = _to_numpy(evidence.logits.double())
        probabilities = scale_probabilities(logits, temperature=temperature, multi_label=self.multi_label)
        if quantile is None:
            return probabilities, None
        score: Any = self.calibration.method
        return probabilities, prediction_sets(probabilities, quantile=quantile, score=score)


def _to_numpy(values: Tensor) -> npt.NDArray[np.float64]:
    array: npt.NDArray[np.float64] = values.detach().cpu().contiguous().numpy()
    return array
