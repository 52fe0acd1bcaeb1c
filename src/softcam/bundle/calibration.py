"""What a bundle says of uncertainty: a temperature and, of exclusive classes, a conformal quantile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from softcam.bundle.values import are_thresholds, is_json, is_number, optional

METHODS = ("lac", "aps")


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that can be believed, and these sets of classes; chosen on validation images.

    Logits and maps stay as they are, and so does the class that is reported: the bundle's thresholds have moved with
    the probabilities.

    Args:
        temperature: What logits are divided by before softmax or sigmoid; above 0.
        n: Images that it was chosen on.
        split: Their split of the manifest.
        data_digest: SHA-256 of their table and files, as `Manifest.digest` gives it.
        method: Score of the prediction sets, `lac` or `aps`; None where there are none, as for independent classes.
        alpha: Share of images whose set may miss the true class, in (0, 1); None without sets.
        quantile: Largest score of a class in the set, in [0, 1]; None without sets.
        thresholds: Those of the raw logits, by class name, so that a model can be calibrated again.
        verification: What was measured on other images, in JSON values; None if nothing was.

    Raises:
        ValueError: If a value is not as described.
    """

    temperature: float
    n: int
    split: str
    data_digest: str
    method: str | None = None
    alpha: float | None = None
    quantile: float | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    verification: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse values that no calibration can have."""
        for name, (holds, constraint) in _CONSTRAINTS.items():
            if not holds(getattr(self, name)):
                shown = repr(getattr(self, name))[:80]
                raise ValueError(f"Expected `calibration.{name}` to be {constraint}, but got {shown}.")
        if len({self.method is None, self.alpha is None, self.quantile is None}) > 1:
            raise ValueError("Expected `method`, `alpha` and `quantile` of a calibration together, but got some alone.")

    @property
    def has_sets(self) -> bool:
        """Whether there are prediction sets."""
        return self.quantile is not None


def _is_between(low: float, high: float, *, ends: bool) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        return is_number(value) and (low <= value <= high if ends else low < value < high)

    return holds


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_CONSTRAINTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (_is_between(0, math.inf, ends=False), "finite and above 0"),
    "n": (_is_count, "a whole number of at least 1"),
    "split": (lambda value: isinstance(value, str) and bool(value), "the name of a split"),
    "data_digest": (lambda value: isinstance(value, str) and len(value) == 64, "a SHA-256 in hexadecimal"),
    "method": (optional(lambda value: value in METHODS), f"one of {METHODS} or null"),
    "alpha": (optional(_is_between(0, 1, ends=False)), "in (0, 1) or null"),
    "quantile": (optional(_is_between(0, 1, ends=True)), "in [0, 1] or null"),
    "thresholds": (are_thresholds, "an object of probabilities in [0, 1]"),
    "verification": (optional(is_json), "an object of JSON values or null"),
}
