"""The headline of an evaluation for a terminal: a few rows and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softcam.metrics.glossary import measure
from softcam.reporting.verdicts import verdicts
from softcam.reporting.wording import estimate

HEADLINE = (
    "quadratic_weighted_kappa", "auroc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity",
    "specificity", "ece",
)  # fmt: skip


def headline_rows(metrics: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Return (measure, SoftCAM, black box) with 95 % intervals, as text.

    Args:
        metrics: What `metrics.json` holds.
    """
    ours, theirs = metrics["classification"], metrics.get("black_box") or {}
    return tuple(
        (measure(name).title, estimate(ours[name]), estimate(theirs[name]) if name in theirs else "")
        for name in HEADLINE
        if name in ours
    )


def headline_sentences(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the evaluation decided, in plain words.

    Args:
        metrics: What `metrics.json` holds.
    """
    return tuple(verdict.sentence for verdict in verdicts(metrics))
