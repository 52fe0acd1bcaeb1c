"""Where the reference method stands among the others, in words that the paired differences carry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from softcam.metrics.glossary import Measure, measure
from softcam.reporting.methods import DECISIVE, shown_better
from softcam.reporting.wording import method_title

MAX_NAMES = 8


@dataclass(frozen=True)
class Standing:
    """One measure: against how many other methods the reference is shown to be better, worse, or neither.

    Args:
        measure: How the measure is written.
        better: Number of methods that the reference is better than.
        worse: Number of methods that are better than the reference.
        undecided: Number of methods for which the paired difference shows neither.
        missing: Number of methods without an interval of the difference, as where no image has both values.
        sentence: The same in words, with the names of the methods that are better.
    """

    measure: Measure
    better: int
    worse: int
    undecided: int
    missing: int
    sentence: str

    @property
    def total(self) -> int:
        """Number of other methods."""
        return self.better + self.worse + self.undecided + self.missing


def list_standings(benchmark: pd.DataFrame, comparisons: Iterable[Mapping[str, Any]]) -> tuple[Standing, ...]:
    """Count, for each decisive measure, what the paired differences from the reference show.

    Args:
        benchmark: Columns `metric,direction`; the direction of each measure is taken from it.
        comparisons: Records with `metric`, `method`, `against`, `low`, `high` and perhaps `p_holm`; the first one's
            `against` is the reference.
    """
    records = tuple(comparisons)
    if not records:
        return ()
    reference = str(records[0]["against"])
    own = [row for row in records if str(row["against"]) == reference]
    directions = {str(name): str(way) for name, way in zip(benchmark["metric"], benchmark["direction"], strict=True)}
    found = (
        _stand(metric, directions[metric], reference, [row for row in own if row["metric"] == metric])
        for metric in DECISIVE
        if metric in directions
    )
    return tuple(standing for standing in found if standing.total > standing.missing)


def _stand(metric: str, direction: str, reference: str, rows: list[Mapping[str, Any]]) -> Standing:
    wins = shown_better(metric, rows, higher=direction == "higher")
    methods = [str(row["method"]) for row in rows]
    better = [name for name in methods if (reference, name) in wins]
    worse = [name for name in methods if (name, reference) in wins]
    known = sum(_is_number(row["low"]) and _is_number(row["high"]) for row in rows)
    counts = {"better": len(better), "worse": len(worse), "undecided": known - len(better) - len(worse)}
    missing = len(methods) - known
    how = measure(metric, direction)._replace(direction=direction)
    return Standing(how, **counts, missing=missing, sentence=_say(counts, worse, len(methods), missing))


def _say(counts: Mapping[str, int], worse: list[str], total: int, missing: int) -> str:
    others = f"of {total} other methods" if total != 1 else "of 1 other method"
    text = f"Better than {counts['better'] or 'none'} {others}, "
    text += f"worse than {counts['worse']} ({_join(worse)})" if worse else "worse than none"
    text += f", undecided against {counts['undecided']}" if counts["undecided"] else ""
    return text + (f"; no common images with {missing}." if missing else ".")


def _join(names: list[str]) -> str:
    titles = [method_title(name) for name in names[:MAX_NAMES]]
    rest = [f"and {len(names) - MAX_NAMES} more, marked ▲ in the tables"] if len(names) > MAX_NAMES else []
    return ", ".join(titles + rest)


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)
