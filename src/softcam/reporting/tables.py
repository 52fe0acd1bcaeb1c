"""Tables of the performance: SoftCAM beside the black box, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softcam.metrics.glossary import MEASURES, Measure, measure
from softcam.reporting.wording import DASH, MODELS, estimate

Metrics = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Bar:
    """An interval as positions on an axis, in percent of its length."""

    key: str
    low: float
    value: float
    high: float


@dataclass(frozen=True)
class HeadlineRow:
    """One measure for both models, as numbers and as intervals on the axis that its group shares."""

    measure: Measure
    estimates: tuple[Mapping[str, Any] | None, ...]
    bars: tuple[Bar, ...]
    n: str


@dataclass(frozen=True)
class HeadlineGroup:
    """Measures for which the same direction is good, and the ends of their common axis."""

    direction: str
    axis: tuple[float, float]
    rows: tuple[HeadlineRow, ...]


@dataclass(frozen=True)
class ConfusionTable:
    """A confusion matrix with its title, the key of its model and the names of its columns."""

    title: str
    model: str
    columns: tuple[str, ...]
    rows: tuple[ConfusionRow, ...]


@dataclass(frozen=True)
class LabelRow:
    """One of several independent labels: its numbers for each model."""

    label: str
    model: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ConfusionRow:
    """One true class: its images by predicted class, as counts and as shares of the row."""

    label: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    total: int


def headline_groups(softcam: Metrics, black_box: Metrics | None) -> tuple[HeadlineGroup, ...]:
    """Arrange classification measures of both models by the direction that is good.

    Args:
        softcam: Name -> `value`, `low`, `high`, `n`.
        black_box: The same for the model compared with, if there is one.
    """
    names = sorted(softcam, key=lambda name: (list(MEASURES).index(name) if name in MEASURES else len(MEASURES), name))
    models = {"softcam": softcam, "black-box": black_box or {}}
    groups = []
    for direction in ("higher", "lower"):
        chosen = [name for name in names if measure(name).direction == direction]
        axis = _axis([model[name] for model in models.values() for name in chosen if name in model], direction)
        rows = tuple(_headline_row(name, models, axis) for name in chosen)
        if rows:
            groups.append(HeadlineGroup(direction, axis, rows))
    return tuple(groups)


def confusion_tables(confusion: Mapping[str, Any], classes: Sequence[str]) -> tuple[ConfusionTable, ...]:
    """Return the confusion matrices of a page: one per model, or one per model and label where these are independent.

    Args:
        confusion: By model, a matrix (K, K), or by label a matrix of absent and present.
        classes: K names.
    """
    tables = []
    for model, found in confusion.items():
        title = MODELS[model]
        if isinstance(found, Mapping):
            sides = ("absent", "present")
            tables += [
                ConfusionTable(f"{title}, {label}", model, sides, confusion_rows(matrix, sides))
                for label, matrix in found.items()
            ]
        elif found:
            tables.append(ConfusionTable(title, model, tuple(classes), confusion_rows(found, classes)))
    return tuple(tables)


def threshold_views(thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Return the thresholds by what they are called on the page; models without one are left out.

    >>> threshold_views({"softcam": {"edema": 0.4}, "black_box": None})
    {'SoftCAM, edema': 0.4}
    """
    views: dict[str, float] = {}
    for model, at in thresholds.items():
        if isinstance(at, Mapping):
            views |= {f"{MODELS[model]}, {label}": float(value) for label, value in at.items()}
        elif at is not None:
            views[MODELS[model]] = float(at)
    return views


def label_rows(per_class: Mapping[str, Mapping[str, Metrics]], columns: Sequence[str]) -> tuple[LabelRow, ...]:
    """Return one row per label and model.

    Args:
        per_class: By model and label, name -> `value`, `low`, `high`, `n`.
        columns: Names of the measures.
    """
    return tuple(
        LabelRow(str(label), MODELS[model], tuple(estimate(found[name]) for name in columns))
        for label in next(iter(per_class.values()), {})
        for model, labels in per_class.items()
        for found in [labels[label]]
    )


def confusion_rows(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[ConfusionRow, ...]:
    """Return the confusion matrix, rows true and columns predicted, with shares of each row.

    >>> confusion_rows([[3, 1], [0, 0]], ["a", "b"])[0].shares
    (0.75, 0.25)
    """
    return tuple(
        ConfusionRow(str(label), tuple(row), tuple(count / sum(row) if sum(row) else 0.0 for count in row), sum(row))
        for label, row in zip(classes, [[int(count) for count in row] for row in matrix], strict=True)
    )


def _headline_row(name: str, models: Mapping[str, Metrics], axis: tuple[float, float]) -> HeadlineRow:
    found = {key: model.get(name) for key, model in models.items()}
    bars = tuple(_bar(key, value, axis) for key, value in found.items() if value is not None and _is_finite(value))
    return HeadlineRow(measure(name), tuple(found.values()), bars, _count([v["n"] for v in found.values() if v]))


def _bar(key: str, found: Mapping[str, Any], axis: tuple[float, float]) -> Bar:
    low, value, high = (100 * (float(found[end]) - axis[0]) / (axis[1] - axis[0]) for end in ("low", "value", "high"))
    return Bar(key, low, value, high)


def _is_finite(found: Mapping[str, Any]) -> bool:
    return all(math.isfinite(float(found[end])) for end in ("low", "value", "high"))


def _axis(found: Sequence[Mapping[str, Any]], direction: str) -> tuple[float, float]:
    ends = [float(entry[end]) for entry in found if _is_finite(entry) for end in ("low", "high")]
    low, high = min([0.9, *ends]), max([0.1, *ends])
    return (math.floor(low * 10) / 10, 1.0) if direction == "higher" else (0.0, math.ceil(high * 10) / 10)


def _count(counts: Iterable[Any]) -> str:
    found = sorted({int(count) for count in counts})
    return str(found[0]) if len(found) == 1 else f"{found[0]}{DASH}{found[-1]}" if found else DASH
