"""Tables of the attribution methods: one row per method, one column per metric, first the few metrics that decide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from softcam.attribution import METHODS
from softcam.metrics.glossary import MEASURES, Measure, find_stem, measure
from softcam.reporting.wording import method_title, number, span, split_name

DECISIVE = (
    "pointing_game",
    "activation_precision",
    "topk_precision",
    "deletion_area_mean",
    "insertion_area_mean",
    "gini",
)
"""The metrics of the summary, where an evaluation has them."""

FLOORS = ("random", "edges", "center_gaussian")
"""Methods that know nothing of the model."""

MAX_COLUMNS = 9
"""Columns of a table of one family; what is more goes into a second one, so that a page of paper holds each."""

_OTHER = "Other"
_MODELS = {"softcam": "SoftCAM", "black_box": "the black box"}


@dataclass(frozen=True)
class Strip:
    """An interval on the axis of its column, in percent of its length; `reference` is the reference's value there."""

    low: float
    value: float
    high: float
    reference: float | None


@dataclass(frozen=True)
class MethodCell:
    """One method's value of one measure.

    Args:
        value: The mean over images.
        interval: Its 95 % interval; empty if there is none.
        undefined: Images for which the measure has no value; None where it is what the column's head says.
        best: Whether it is shown to be better than every other method.
        versus: `better` or `worse` than the reference method where that is shown, else empty.
        strip: The interval as positions on the column's axis; None where there is no value.
    """

    value: str
    interval: str
    undefined: int | None
    best: bool
    versus: str
    strip: Strip | None


@dataclass(frozen=True)
class MethodColumn:
    """One measure.

    Args:
        measure: How it is written; `direction` is that of the benchmark.
        undefined: For how many images most methods have no value.
        axis: Lowest and highest end of all intervals.
    """

    measure: Measure
    undefined: int
    axis: tuple[float, float]


@dataclass(frozen=True)
class MethodRow:
    """One method over all measures of a table; `n` is the number of its images where they are fewer than most."""

    title: str
    n: int | None
    reference: bool
    cells: tuple[MethodCell | None, ...]


@dataclass(frozen=True)
class MethodGroup:
    """Methods that look at the same place of the same model."""

    label: str
    rows: tuple[MethodRow, ...]


@dataclass(frozen=True)
class MethodTable:
    """Measures of one family over all methods; `n` is the largest number of images."""

    title: str
    columns: tuple[MethodColumn, ...]
    groups: tuple[MethodGroup, ...]
    n: int


@dataclass(frozen=True)
class MethodTables:
    """All that is said of the methods.

    Args:
        summary: The decisive measures; None if there is none of them.
        families: Every measure, family after family.
        reference: Title of the method that all others are compared with; empty if no paired differences were there.
        valueless: Titles of measures for which no method has a value.
        methods: Number of methods.
    """

    summary: MethodTable | None
    families: tuple[MethodTable, ...]
    reference: str
    valueless: tuple[str, ...]
    methods: int


def method_tables(benchmark: pd.DataFrame, comparisons: Iterable[Mapping[str, Any]] = ()) -> MethodTables:
    """Turn the tidy benchmark into a summary and one table per family, one row per method and one column per measure.

    A method is called better or worse than another only if the 95 % interval of their paired difference excludes zero
    and, where given, the p-value that is corrected for all comparisons is below 0.05; best only if it is better than
    every other method that has a value.

    Args:
        benchmark: Columns `method,metric,direction,value,low,high,n,undefined` and perhaps `model,layer`.
        comparisons: Records with `metric`, `method`, `against`, `low`, `high` (interval of method minus against) and
            perhaps `p_holm`.
    """
    sheet = _Sheet(benchmark, tuple(comparisons))
    metrics = sorted(sheet.found, key=_rank)
    present = [name for name in metrics if sheet.has_value(name)]
    decisive = [name for name in DECISIVE if name in present]
    families = dict.fromkeys(measure(name).family or _OTHER for name in present)
    return MethodTables(
        summary=sheet.table("Summary", decisive) if decisive else None,
        families=tuple(
            sheet.table(title, names)
            for family in families
            for title, names in split_columns(family, [n for n in present if (measure(n).family or _OTHER) == family])
        ),
        reference=method_title(sheet.reference) if sheet.reference else "",
        valueless=tuple(measure(name).title for name in metrics if name not in present),
        methods=len(sheet.places),
    )


def split_columns(title: str, names: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield parts of at most `MAX_COLUMNS` measures with a title for each.

    >>> [(title, len(names)) for title, names in split_columns("Faithfulness", "abcdefghijkl")]
    [('Faithfulness, 1 of 2', 9), ('Faithfulness, 2 of 2', 3)]
    """
    parts = -(-len(names) // MAX_COLUMNS)
    for index in range(parts):
        mark = f", {index + 1} of {parts}" if parts > 1 else ""
        yield title + mark, names[index * MAX_COLUMNS : (index + 1) * MAX_COLUMNS]


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


def is_own(name: str) -> bool:
    """Return whether a method shows a SoftCAM's own maps."""
    base = split_name(name).base
    return base in METHODS and METHODS[base].needs_softcam


def is_floor(name: str) -> bool:
    """Return whether a method knows nothing of the model."""
    return split_name(name).base in FLOORS


def group_label(name: str, model: str, layer: str) -> str:
    """Return the heading under which a method stands.

    >>> group_label("grad_cam@blocks.2", "black_box", "blocks.2")
    'Post-hoc methods, of the black box, at blocks.2'
    """
    if is_own(name):
        return "SoftCAM's own maps"
    if is_floor(name):
        return "Floors, which know nothing of the model"
    explained = f", of {_MODELS.get(model, model)}" if model else ""
    return f"Post-hoc methods{explained}" + (f", at {layer}" if layer else "")


class _Sheet:
    """The benchmark by metric and method, and where each method stands."""

    def __init__(self, benchmark: pd.DataFrame, comparisons: tuple[Mapping[str, Any], ...]) -> None:
        self.comparisons = comparisons
        self.reference = str(comparisons[0]["against"]) if comparisons else ""
        self.found: dict[str, dict[str, Mapping[Any, Any]]] = {}
        self.places: dict[str, str] = {}
        for row in benchmark.to_dict("records"):
            name = str(row["method"])
            self.found.setdefault(str(row["metric"]), {})[name] = row
            layer = _text(row.get("layer")) or split_name(name).layer
            self.places.setdefault(name, group_label(name, _text(row.get("model")), layer))

    def has_value(self, metric: str) -> bool:
        return any(math.isfinite(row["value"]) for row in self.found[metric].values())

    def table(self, title: str, metrics: Sequence[str]) -> MethodTable:
        columns = {name: self._column(name) for name in metrics}
        cells = {name: self._cells(name, column) for name, column in columns.items()}
        found = [self.found[name] for name in metrics]
        counts = {
            method: max((int(rows[method]["n"]) for rows in found if method in rows), default=0)
            for method in self.places
        }
        most = max(counts.values(), default=0)
        lines = {
            method: MethodRow(
                method_title(method),
                counts[method] if counts[method] < most else None,
                method == self.reference,
                tuple(cells[name].get(method) for name in metrics),
            )
            for method in self.places
        }
        labels = sorted(dict.fromkeys(self.places.values()), key=self._order)
        groups = tuple(
            MethodGroup(label, tuple(row for method, row in lines.items() if self.places[method] == label))
            for label in labels
        )
        return MethodTable(title, tuple(columns.values()), groups, most)

    def _order(self, label: str) -> int:
        first = next(name for name, place in self.places.items() if place == label)
        return 0 if is_own(first) else 3 if is_floor(first) else 2 if ", at " in label else 1

    def _column(self, metric: str) -> MethodColumn:
        rows = self.found[metric].values()
        ends = [float(row[end]) for row in rows for end in ("low", "value", "high") if math.isfinite(row[end])]
        common = Counter(int(row["undefined"]) for row in rows).most_common(1)[0][0]
        direction = str(next(iter(rows))["direction"])
        return MethodColumn(measure(metric, direction)._replace(direction=direction), common, (min(ends), max(ends)))

    def _cells(self, metric: str, column: MethodColumn) -> dict[str, MethodCell]:
        rows = self.found[metric]
        wins = shown_better(metric, self.comparisons, higher=column.measure.direction == "higher")
        rivals = [name for name, row in rows.items() if math.isfinite(row["value"])]
        cells = {name: _make_cell(row, column.axis) for name, row in rows.items()}
        reference = cells[self.reference].strip if self.reference in cells else None
        for name, cell in cells.items():
            versus = [
                word
                for word, pair in (("better", (name, self.reference)), ("worse", (self.reference, name)))
                if pair in wins
            ]
            best = len(rivals) > 1 and all((name, other) in wins for other in rivals if other != name)
            strip = cell.strip and replace(cell.strip, reference=reference.value if reference else None)
            undefined = None if cell.undefined == column.undefined else cell.undefined
            cells[name] = replace(cell, versus="".join(versus), best=best, strip=strip, undefined=undefined)
        return cells


def _make_cell(row: Mapping[Any, Any], axis: tuple[float, float]) -> MethodCell:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    known = math.isfinite(low) and math.isfinite(high)
    strip = None
    if math.isfinite(value):
        ends = (low, high) if known else (value, value)
        strip = Strip(_position(ends[0], axis), _position(value, axis), _position(ends[1], axis), None)
    return MethodCell(
        number(value), span(low, high) if known else "", int(row["undefined"]), best=False, versus="", strip=strip
    )


def _position(value: float, axis: tuple[float, float]) -> float:
    return 100 * (value - axis[0]) / (axis[1] - axis[0]) if axis[1] > axis[0] else 50.0


def _rank(metric: str) -> int:
    stem = find_stem(metric)
    return list(MEASURES).index(stem) if stem else len(MEASURES)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
