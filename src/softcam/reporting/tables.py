"""Tables of the report: SoftCAM beside the black box, the confusion matrix, one column per attribution method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from softcam.reporting.wording import DASH, MEASURES, Measure, measure, method_title, number, span

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
class ConfusionRow:
    """One true class: its images by predicted class, as counts and as shares of the row."""

    label: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    total: int


@dataclass(frozen=True)
class MethodCell:
    """One method's value of one measure.

    Args:
        value: The mean over images.
        interval: Its 95 % interval; empty if there is none.
        undefined: Images for which the measure has no value.
        best: Whether it is shown to be better than every other method.
        versus: `better` or `worse` than the reference method where that is shown, else empty.
    """

    value: str
    interval: str
    undefined: int
    best: bool
    versus: str


@dataclass(frozen=True)
class MethodRow:
    """One measure over all methods."""

    measure: Measure
    cells: tuple[MethodCell | None, ...]


@dataclass(frozen=True)
class MethodColumn:
    """One method and the number of images that it explained."""

    title: str
    n: int
    reference: bool


@dataclass(frozen=True)
class MethodTable:
    """One row per measure, one column per method; `reference` is empty if no paired differences were there."""

    columns: tuple[MethodColumn, ...]
    rows: tuple[MethodRow, ...]
    reference: str


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


def confusion_rows(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[ConfusionRow, ...]:
    """Return the confusion matrix, rows true and columns predicted, with shares of each row.

    >>> confusion_rows([[3, 1], [0, 0]], ["a", "b"])[0].shares
    (0.75, 0.25)
    """
    return tuple(
        ConfusionRow(str(label), tuple(row), tuple(count / sum(row) if sum(row) else 0.0 for count in row), sum(row))
        for label, row in zip(classes, [[int(count) for count in row] for row in matrix], strict=True)
    )


def method_table(benchmark: pd.DataFrame, comparisons: Iterable[Mapping[str, Any]] = ()) -> MethodTable:
    """Turn the tidy benchmark into one row per measure and one column per method.

    A method is called better or worse than another only if the 95 % interval of their paired difference excludes zero
    and, where given, the p-value that is corrected for all comparisons is below 0.05; best only if it is better than
    every other method.

    Args:
        benchmark: Columns `method,metric,direction,value,low,high,n,undefined`.
        comparisons: Records with `metric`, `method`, `against`, `low`, `high` (interval of method minus against) and
            perhaps `p_holm`.
    """
    methods = tuple(dict.fromkeys(str(name) for name in benchmark["method"]))
    records = list(comparisons)
    reference = str(records[0]["against"]) if records else ""
    rows = []
    for metric, part in benchmark.groupby("metric", sort=False):
        direction = str(part["direction"].iloc[0])
        wins = shown_better(str(metric), records, higher=direction == "higher")
        found = {str(row["method"]): row for row in part.to_dict("records")}
        cells = tuple(_method_cell(found.get(name), name, methods, wins, reference) for name in methods)
        rows.append(MethodRow(measure(str(metric), direction), cells))
    counts = benchmark.groupby("method")["n"].max()
    columns = tuple(MethodColumn(method_title(name), int(counts[name]), name == reference) for name in methods)
    return MethodTable(columns, tuple(rows), method_title(reference) if reference else "")


def shown_better(metric: str, comparisons: Iterable[Mapping[str, Any]], *, higher: bool) -> frozenset[tuple[str, str]]:
    """Return the pairs (better, worse) of methods that the paired differences of one metric decide.

    >>> rows = [{"metric": "x", "method": "a", "against": "b", "low": 0.1, "high": 0.2, "p_holm": 0.01}]
    >>> shown_better("x", rows, higher=False)
    frozenset({('b', 'a')})
    """
    wins = set()
    for row in comparisons:
        if row["metric"] != metric or not float(row.get("p_holm", 0.0)) < 0.05:
            continue
        pair = str(row["method"]), str(row["against"])
        if row["low"] > 0 or row["high"] < 0:
            wins.add(pair if (row["low"] > 0) == higher else pair[::-1])
    return frozenset(wins)


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


def _method_cell(
    row: Mapping[Any, Any] | None,
    name: str,
    methods: Sequence[str],
    wins: frozenset[tuple[str, str]],
    reference: str,
) -> MethodCell | None:
    if row is None:
        return None
    low, high = float(row["low"]), float(row["high"])
    interval = span(low, high) if math.isfinite(low) and math.isfinite(high) else ""
    versus = "better" if (name, reference) in wins else "worse" if (reference, name) in wins else ""
    best = len(methods) > 1 and all((name, other) in wins for other in methods if other != name)
    return MethodCell(number(float(row["value"])), interval, int(row["undefined"]), best, versus)


def _count(counts: Iterable[Any]) -> str:
    found = sorted({int(count) for count in counts})
    return str(found[0]) if len(found) == 1 else f"{found[0]}{DASH}{found[-1]}" if found else DASH
