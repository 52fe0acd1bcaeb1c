"""What is checked of every image and prediction, and whether a fault warns or refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from softcam.bundle import InputStatistics, measure_intensities
from softcam.imaging import Preprocessing
from softcam.predict.inputs import PreparedImage

Level = Literal["off", "warn", "refuse"]


@dataclass(frozen=True)
class Checks:
    """What becomes of an image that fails a check: nothing, a warning in its prediction, or a failed prediction.

    All but the first compare the image with what the bundle says of the training's images, and do nothing where it says
    nothing.

    Args:
        sum: Maps that do not average to their logits within 1e-5. Here `refuse` raises `IdentityError` instead, as NaN
            and infinity always do: the model is broken, not the image.
        size: Height, width and proportions of the original, its channels and bits.
        intensity: Mean and standard deviation of the network's input.
        features: Distance of the pooled features from the mean of the training's, and their direction, as the sign of
            an image of another kind. It needs torch: `warn` is left out with another backend, `refuse` keeps "auto" in
            torch.

    Raises:
        ValueError: If a level is unknown.
    """

    sum: Level = "refuse"
    size: Level = "warn"
    intensity: Level = "warn"
    features: Level = "warn"

    def __post_init__(self) -> None:
        """Refuse unknown levels."""
        for entry in fields(self):
            if (value := getattr(self, entry.name)) not in get_args(Level):
                known = ", ".join(get_args(Level))
                raise ValueError(f"Expected the check `{entry.name}` to be one of {known}, but got {value!r}.")

    @classmethod
    def of_inputs(cls, level: Level) -> Checks:
        """Return all checks of images at one level; the sum is checked as ever."""
        return cls(size=level, intensity=level, features=level)

    @property
    def any_of_inputs(self) -> bool:
        """Whether any image is compared with those of the training."""
        return {self.size, self.intensity, self.features} != {"off"}


class Finding(NamedTuple):
    """A fault of an image.

    Args:
        check: Field of `Checks`.
        text: What is wrong, without anything that names the image.
        refused: Whether there is no prediction for it.
    """

    check: str
    text: str
    refused: bool

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"


@dataclass(frozen=True)
class Checker:
    """Compares images with those of the training.

    Args:
        checks: What is checked.
        statistics: What the training's images were like; None if the bundle does not say.
        preprocessing: How images became inputs.
    """

    checks: Checks
    statistics: InputStatistics | None
    preprocessing: Preprocessing

    @property
    def is_active(self) -> bool:
        """Whether predictions can have warnings."""
        return self.checks.sum == "warn" or (self.statistics is not None and self.checks.any_of_inputs)

    @property
    def wants_features(self) -> bool:
        """Whether pooled features are looked at."""
        return self.checks.features != "off" and self.statistics is not None and self.statistics.features is not None

    @property
    def identity(self) -> dict[str, Any]:
        """All of it that decides warnings and refusals, as JSON gives it back; empty if there can be none."""
        if not self.is_active:
            return {}
        record = None if self.statistics is None else asdict(self.statistics)
        digest = hashlib.sha256(json.dumps(record).encode()).hexdigest()
        return {"checks": asdict(self.checks), "statistics": digest}

    def __call__(
        self,
        items: Sequence[PreparedImage],
        images: npt.NDArray[np.float32],
        features: npt.NDArray[np.float64] | None,
    ) -> list[list[Finding]]:
        """Return what is wrong with each image.

        Args:
            items: Where they come from.
            images: (N, C, H, W) network inputs.
            features: (N, D) pooled features; None where there are none.
        """
        found: list[list[Finding]] = [[] for _ in items]
        if self.statistics is None or not self.checks.any_of_inputs:
            return found
        for index, texts in enumerate(zip(*self._measure(self.statistics, items, images, features), strict=True)):
            named = zip(("size", "intensity", "features"), texts, strict=True)
            levels = ((name, text, getattr(self.checks, name)) for name, text in named)
            found[index] = [Finding(name, text, level == "refuse") for name, text, level in levels if text]
        return found

    def _measure(
        self,
        statistics: InputStatistics,
        items: Sequence[PreparedImage],
        images: npt.NDArray[np.float32],
        features: npt.NDArray[np.float64] | None,
    ) -> tuple[list[str], list[str], list[str]]:
        sizes, intensities, distances = [[""] * len(items) for _ in range(3)]
        if self.checks.size != "off":
            sizes = [_find_size(statistics, item) for item in items]
        if self.checks.intensity != "off":
            pairs = measure_intensities(images, self.preprocessing).T.tolist()
            intensities = [statistics.find_unseen_intensity(*pair) for pair in pairs]
        if self.wants_features and features is not None and statistics.features is not None:
            distances = statistics.features.find_unlike(features)
        return sizes, intensities, distances


def _find_size(statistics: InputStatistics, item: PreparedImage) -> str:
    if item.geometry is None:
        return ""
    height, width = item.geometry.original_height, item.geometry.original_width
    return statistics.find_unseen_size(height, width, item.channels, item.bits)
