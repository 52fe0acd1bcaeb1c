"""From validation scores to the threshold from which a class is reported, by a rule that is stated beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from softcam.metrics.classification import roc_points
from softcam.metrics.inputs import Values

RULES = ("youden", "f1", "sensitivity", "specificity")
_AIMS = ("sensitivity", "specificity")


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen.

    Args:
        name: `youden` for the largest sensitivity + specificity, `f1` for the largest F1 score; `sensitivity` for the
            highest specificity that leaves at least that sensitivity, `specificity` the other way round.
        least: What has to be reached, in (0, 1], for the latter two; None for the others.

    Raises:
        ValueError: If there is no such rule, or `least` does not belong to it.

    Example:
        >>> str(ThresholdRule.parse("sensitivity=0.9"))
        'sensitivity=0.9'
    """

    name: str = "youden"
    least: float | None = None

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(f"Expected a rule among {', '.join(RULES)}, but got {self.name!r}.")
        if self.name in _AIMS and not (self.least is not None and 0 < self.least <= 1):
            raise ValueError(f"Expected {self.name}=<share in (0, 1]>, such as {self.name}=0.9, but got {self.least}.")
        if self.name not in _AIMS and self.least is not None:
            raise ValueError(f"Expected no number for the rule {self.name}, but got {self.least}.")

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Return the rule of a text such as `youden` or `sensitivity=0.9`.

        Raises:
            ValueError: If there is no such rule.
        """
        name, given, number = text.partition("=")
        try:
            return cls(name, float(number) if given else None)
        except ValueError as error:
            raise ValueError(f"{error} Rules are youden, f1, sensitivity=0.9 and specificity=0.9.") from None

    def __str__(self) -> str:
        return self.name if self.least is None else f"{self.name}={self.least:g}"


YOUDEN = ThresholdRule()


def choose_threshold(scores: Values, targets: Values, rule: ThresholdRule = YOUDEN) -> float:
    """Return the threshold that a rule chooses, for validation data.

    It lies halfway between two neighbouring scores, so that rounding in another batch turns no decision over. Among
    thresholds with equally large Youden indices or F1 scores the lowest, most sensitive one is taken; if none beats
    chance, the lowest score is that of Youden's index.

    Args:
        scores: (N,) finite; higher means more likely positive.
        targets: (N,) of 0 and 1, both present.
        rule: What is to be largest, or to be reached.

    Returns:
        A score at or above this is called positive.

    Raises:
        ValueError: If a class is absent, a shape is wrong, a score is not finite or a target is not 0 or 1, or if no
            score has the specificity that is to be reached.

    >>> choose_threshold([0.1, 0.4, 0.6, 0.8], [0, 0, 1, 1])
    0.5
    >>> choose_threshold([0.1, 0.4, 0.6, 0.8], [0, 1, 0, 1], ThresholdRule("sensitivity", 0.5))
    0.7

    Reference: Youden 1950, Cancer 3:32.
    """
    fpr, tpr, thresholds = (points.numpy()[1:] for points in roc_points(scores, targets))
    if np.isnan(fpr).any() or np.isnan(tpr).any():
        raise ValueError("Expected `targets` to hold both 0 and 1, but got one class. Choose on data with both.")
    positive = float(np.asarray(targets, np.float64).mean())
    best = _find(fpr, tpr, positive, rule)
    return float((thresholds[best] + thresholds[min(best + 1, len(thresholds) - 1)]) / 2)


def _find(fpr: np.ndarray, tpr: np.ndarray, positive: float, rule: ThresholdRule) -> int:
    """Return which of the falling thresholds the rule chooses; `positive` is the share of positives."""
    # Differences of shares tie only up to rounding.
    if rule.least is None:
        found, true = tpr * positive + fpr * (1 - positive), tpr * positive
        aim = np.round(tpr - fpr if rule.name == "youden" else 2 * true / (found + positive), 12)
        return len(aim) - 1 - int(np.argmax(aim[::-1]))
    if rule.name == "sensitivity":
        return int(np.argmax(np.round(tpr, 12) >= rule.least))
    reached = np.flatnonzero(np.round(1 - fpr, 12) >= rule.least)
    if not len(reached):
        raise ValueError(
            f"Expected a score with a specificity of at least {rule.least:g}, but that of the highest is "
            f"{1 - fpr[0]:.3g}. Ask for less."
        )
    return int(reached[-1])
