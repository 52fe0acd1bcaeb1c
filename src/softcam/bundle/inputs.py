"""What the images of a model's training were like: sizes, intensities and features, kept in the bundle.

Simple statistics for simple warnings. They notice images of another kind (another scanner, colour for grey, noise);
they do not notice what looks alike and means something else, and no warning is no proof that an image is fit.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.bundle.values import is_number
from softcam.imaging.records import read_record

QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)
"""Of heights, widths, aspects and intensities, in the order in which they are kept."""

HELD_OUT_QUANTILE = 0.995
"""Share of the held-out images that each of the two limits of the features lets pass: 99 in 100 pass both."""

_FACTOR = 1.5
_SLACK = 0.1
_LEAST_SLACK = 0.02
_FLOOR = 1e-3

Floats = npt.NDArray[np.float64]
Range = tuple[float, ...]


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and variance of each channel of the pooled features under the class evidence layer.

    Args:
        mean: (D,) float32, little-endian, in base64.
        variance: Likewise.
        threshold: Distance that 995 of 1000 held-out images do not exceed.
        alignment: Cosine with the mean that 995 of 1000 held-out images reach.
        n: Images that both were chosen on.

    Raises:
        ValueError: If a value is not as described.
    """

    mean: str
    variance: str
    threshold: float
    alignment: float
    n: int

    def __post_init__(self) -> None:
        """Refuse values that no statistics can have."""
        mean, variance = _decode(self.mean, "mean"), _decode(self.variance, "variance")
        if mean.size == 0 or mean.shape != variance.shape or (variance < 0).any():
            raise ValueError("Expected `inputs.features` to hold a mean and a variance >= 0 for each channel.")
        if not (is_number(self.threshold) and self.threshold >= 0):
            raise ValueError(f"Expected `inputs.features.threshold` to be at least 0, but got {self.threshold!r}.")
        if not (is_number(self.alignment) and -1 <= self.alignment <= 1):
            raise ValueError(f"Expected `inputs.features.alignment` to be in [-1, 1], but got {self.alignment!r}.")

    @classmethod
    def measure(cls, seen: Floats, held_out: Floats) -> FeatureStatistics:
        """Return the statistics of pooled features.

        Args:
            seen: (N, D) of training images.
            held_out: (M, D) of images that the model was not trained on.
        """
        mean, variance = _encode(seen.mean(0)), _encode(seen.var(0))
        free = cls(mean, variance, 0.0, -1.0, len(held_out))
        far = np.quantile(free.distance(held_out), HELD_OUT_QUANTILE, method="higher")
        turned = np.quantile(free.cosine(held_out), 1 - HELD_OUT_QUANTILE, method="lower")
        return cls(mean, variance, float(far), float(turned), len(held_out))

    def find_unlike(self, features: Floats) -> list[str]:
        """Return for each image in what its features are unlike those of the training; empty if in nothing.

        Args:
            features: (N, D) pooled features.
        """
        found = []
        for far, turned in zip(self.distance(features), self.cosine(features), strict=True):
            texts = [f"distance {far:.3g} (limit {self.threshold:.3g})"] * bool(far > self.threshold)
            texts += [f"alignment {turned:.3g} (limit {self.alignment:.3g})"] * bool(turned < self.alignment)
            found.append(", ".join(texts))
        return found

    def cosine(self, features: Floats) -> Floats:
        """Return the cosine (N,) between images' features and the training's mean; 0 where either is 0.

        What excites few channels, such as noise, lies near the mean in every one of them, but not along it.

        Args:
            features: (N, D) pooled features.
        """
        mean = _decode(self.mean, "mean")
        lengths: Floats = np.linalg.norm(features, axis=1) * np.linalg.norm(mean)
        cosine: Floats = np.divide(features @ mean, lengths, out=np.zeros(len(features)), where=lengths > 0)
        # Rounding must not take a length beyond 1.
        return np.clip(cosine, -1.0, 1.0)

    def distance(self, features: Floats) -> Floats:
        """Return how far images (N,) lie from the training's: the diagonal Mahalanobis distance over sqrt(D).

        About 1 for an image like those of the training. Channels are taken for independent and normally distributed,
        which they are not: it is a rule of thumb. Variances below a thousandth of their mean count as that much.

        Args:
            features: (N, D) pooled features.

        Reference: Lee et al. 2018, arXiv 1807.03888, with one class and a diagonal covariance.
        """
        mean, variance = _decode(self.mean, "mean"), _decode(self.variance, "variance")
        floor = max(_FLOOR * float(variance.mean()), float(np.finfo(np.float32).tiny))
        squares: Floats = (features - mean) ** 2 / np.maximum(variance, floor)
        distance: Floats = np.sqrt(squares.mean(axis=1))
        return distance


@dataclass(frozen=True)
class InputStatistics:
    """What images were like before and after they became network inputs.

    Args:
        n: Images that were measured.
        height: Of the originals in pixels: smallest, 1 %, median, 99 % and largest.
        width: Likewise.
        aspect: Width over height, likewise.
        channels: What files held: 1 for grey, 3 for colour.
        bits: Bits per channel of the files, 8 or 16.
        mean: Mean intensity of the input in [0, 1], as for `height`.
        std: Standard deviation of the intensity of the input, likewise.
        features: Of the pooled features; None if they were not measured.

    Raises:
        ValueError: If a value is not as described.
    """

    n: int
    height: Range
    width: Range
    aspect: Range
    channels: tuple[int, ...]
    bits: tuple[int, ...]
    mean: Range
    std: Range
    features: FeatureStatistics | None = None

    def __post_init__(self) -> None:
        """Take lists and nested objects as JSON has them; refuse values that no statistics can have."""
        for entry in fields(self):
            if isinstance(value := getattr(self, entry.name), list):
                object.__setattr__(self, entry.name, tuple(value))
        features: Any = self.features
        if isinstance(features, Mapping):
            object.__setattr__(self, "features", read_record(FeatureStatistics, features))
        for name in ("height", "width", "aspect", "mean", "std"):
            if not _is_range(getattr(self, name)):
                raise ValueError(f"Expected `inputs.{name}` to be five numbers that do not fall.")
        for name, known in (("channels", {1, 3}), ("bits", {8, 16})):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not value or not set(value) <= known:
                raise ValueError(f"Expected `inputs.{name}` to be of {sorted(known)}, but got {value!r}.")

    def find_unseen_size(self, height: int, width: int, channels: int, bits: int) -> str:
        """Return what of an original differs from all that was seen, in words; empty if nothing does.

        Sides by more than a factor of 1.5 beyond the smallest or largest, aspects by more than 1.25.

        Args:
            height: In pixels.
            width: In pixels.
            channels: 1 or 3; 0 if not known.
            bits: 8 or 16; 0 if not known.
        """
        found = []
        sides = (("height", height, _FACTOR), ("width", width, _FACTOR), ("aspect", width / height, math.sqrt(_FACTOR)))
        for name, value, factor in sides:
            seen = getattr(self, name)
            if not seen[0] / factor <= value <= seen[-1] * factor:
                found.append(f"{name} {value:.4g} (seen {seen[0]:.4g} to {seen[-1]:.4g})")
        if channels and channels not in self.channels:
            found.append(f"{_COLOURS[channels]} (seen {_COLOURS[self.channels[0]]} alone)")
        if bits and bits not in self.bits:
            found.append(f"{bits} bits (seen {self.bits[0]} alone)")
        return ", ".join(found)

    def find_unseen_intensity(self, mean: float, std: float) -> str:
        """Return what of an input's intensities lies outside of all that was seen; empty if nothing does.

        By more than a tenth of the range between the smallest and the largest, and by more than 0.02.

        Args:
            mean: In [0, 1].
            std: Standard deviation.
        """
        found = []
        for name, value in (("mean", mean), ("std", std)):
            low, high = getattr(self, name)[0], getattr(self, name)[-1]
            slack = max(_SLACK * (high - low), _LEAST_SLACK)
            if not low - slack <= value <= high + slack:
                found.append(f"{name} {value:.3f} (seen {low:.3f} to {high:.3f})")
        return ", ".join(found)


_COLOURS = {1: "grey", 3: "colour"}


def to_range(values: Sequence[float] | Floats) -> Range:
    """Return the five numbers that are kept of a quantity."""
    return tuple(float(f"{value:.6g}") for value in np.quantile(np.asarray(values, float), QUANTILES))


def _is_range(value: Any) -> bool:
    whole = isinstance(value, tuple) and len(value) == len(QUANTILES) and all(map(is_number, value))
    return whole and list(value) == sorted(value)


def _encode(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _decode(text: str, name: str) -> Floats:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"Expected `inputs.features.{name}` to be float32 numbers in base64.") from error
    if not np.isfinite(values).all():
        raise ValueError(f"Expected `inputs.features.{name}` to be finite.")
    return values
