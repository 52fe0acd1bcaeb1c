"""The measured figures of two results of a benchmark, matched by name, and which of them differ beyond noise."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from timing import find_quartiles

NOISE = 1.1
"""By which factor a figure without recorded spread may differ before that means anything."""

LEAST = 1.02
"""The smallest factor that is called a difference, however narrow the spread."""

Kind = Literal["time", "rate", "memory", "cost ratio", "gain ratio", "reference"]
Verdict = Literal["better", "worse", "within noise", "not judged"]

# The first rule that fits decides; figures of what is compared with are no achievement and no fault.
_RULES: tuple[tuple[str, Kind], ...] = (
    (r"^(forward|trunk|bare|floor|quantus|captum|grad_cam|score_cam|integrated_gradients|nchw|plain)_", "reference"),
    (r"(^|_)per_second(_|$)", "rate"),
    (r"(^|_)(ms|seconds|minutes)(_[a-z]+)*$|^stages$", "time"),
    (r"(^|_)(gib|mib|kib)(_per_[a-z]+)?$|_bytes$", "memory"),
    (r"(^|_)(share|speedup|efficiency)(_|$)", "gain ratio"),
    (r"(^|_)(ratio|growth)$", "cost ratio"),
)
_SPREADS = ("_quartiles", "_ratio_range", "_range")
_NUMBERS = frozenset({"batch", "batch_size", "classes", "images", "size", "stride", "threads", "workers", "cores"})
_SKIPPED = frozenset({"environment", "setting", "limit", "least", "most", "least_share", "longest_start"})


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: Where it is: the rows that lead to it and its own name.
        kind: What it is, which says whether less is better.
        value: The median, or the only value.
        spread: First and third quartile, or the range where only that is recorded; None where neither is.
    """

    name: tuple[str, ...]
    kind: Kind
    value: float
    spread: tuple[float, float] | None

    @property
    def within_run(self) -> bool:
        """Whether it is a ratio within one run, which other machines have as well."""
        return self.kind in ("cost ratio", "gain ratio")


@dataclass(frozen=True)
class Change:
    """An old and a new figure of one name.

    Args:
        old: The figure before.
        new: The figure after.
        gain: By which factor it became better: old over new where less is better, else new over old.
        low: Lower end of what the gain can be by both spreads.
        high: Upper end.
        verdict: What that means.
    """

    old: Figure
    new: Figure
    gain: float
    low: float
    high: float
    verdict: Verdict


def classify(name: str) -> Kind | None:
    """Return what the number of some name is; None if it measures nothing.

    Args:
        name: A key of a file of results.

    Example:
        >>> classify("evidence_ratio"), classify("per_second"), classify("classes")
        ('cost ratio', 'rate', None)
    """
    return next((kind for pattern, kind in _RULES if re.search(pattern, name)), None)


def list_figures(result: Mapping[str, Any]) -> dict[tuple[str, ...], Figure]:
    """Return all measured figures of a file of results by name.

    Args:
        result: What the file holds.
    """
    return {figure.name: figure for figure in _walk(result, (), None)}


def compare_figures(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the figures that two files of results share, in the order of the new one.

    Times, rates and memory of different machines are not judged; ratios within a run are.

    Args:
        old: What the file before holds.
        new: What the file after holds.
    """
    alike = describe_machine(old) == describe_machine(new)
    before, after = list_figures(old), list_figures(new)
    return [judge(before[name], after[name], alike=alike) for name in after if name in before]


def describe_machine(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of the machine that a file of results is from."""
    machine: dict[str, Any] = result.get("environment", {}).get("machine", {})
    return machine


def judge(old: Figure, new: Figure, *, alike: bool) -> Change:
    """Return the change from one figure to the other.

    Args:
        old: The figure before.
        new: The figure after.
        alike: Whether both are from machines of one kind.
    """
    first, second = (new, old) if new.kind in ("rate", "gain ratio") else (old, new)
    gain = _divide(first.value, second.value)
    low, high = (_divide(_end(first, 0), _end(second, 1)), _divide(_end(first, 1), _end(second, 0)))
    if old.spread is None or new.spread is None:
        low, high = min(low, gain / NOISE), max(high, gain * NOISE)
    return Change(old, new, gain, low, high, _find_verdict(new, gain, (low, high), alike=alike))


def _find_verdict(figure: Figure, gain: float, ends: tuple[float, float], *, alike: bool) -> Verdict:
    if figure.kind == "reference" or not (alike or figure.within_run) or not math.isfinite(gain):
        return "not judged"
    if ends[0] > 1 and gain >= LEAST:
        return "better"
    return "worse" if ends[1] < 1 and gain <= 1 / LEAST else "within noise"


def _end(figure: Figure, side: int) -> float:
    return figure.value if figure.spread is None else figure.spread[side]


def _divide(first: float, second: float) -> float:
    if second == 0:
        return 1.0 if first == 0 else math.inf
    return first / second


def _walk(node: Mapping[str, Any], path: tuple[str, ...], kind: Kind | None) -> Iterator[Figure]:
    # Numbers without a name of their own, such as `stages_ms: {decode: 3}`, are what those above say.
    for name, value in node.items():
        if name in _SKIPPED or name.endswith(_SPREADS):
            continue
        if isinstance(value, Mapping):
            yield from _walk(value, (*path, name), classify(name))
        elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            for title, entry in _name_rows(value):
                yield from _walk(entry, (*path, name, title), None)
        elif found := classify(name) or kind:
            yield from _read(name, value, node, (path, found))


def _read(name: str, value: Any, node: Mapping[str, Any], where: tuple[tuple[str, ...], Kind]) -> Iterator[Figure]:
    path, kind = where
    if _is_number(value):
        yield Figure((*path, name), kind, float(value), _find_spread(node, name))
    elif isinstance(value, list) and len(value) > 1 and all(map(_is_number, value)):
        low, high = find_quartiles(value, digits=9)
        yield Figure((*path, name), kind, statistics.median(value), (low, high))


def _find_spread(node: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    for ending in ("_quartiles", "_range"):
        spread = node.get(f"{name}{ending}")
        if isinstance(spread, list) and len(spread) == 2 and all(map(_is_number, spread)):
            return float(spread[0]), float(spread[1])
    return None


def _name_rows(rows: list[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row with what tells it from the others; a number where nothing does."""
    seen: dict[str, int] = {}
    for row in rows:
        parts = [value for value in row.values() if isinstance(value, str) and len(value) <= 60]
        parts += [f"{name} {value}" for name, value in row.items() if name in _NUMBERS and _is_number(value)]
        title = ", ".join(parts)
        seen[title] = seen.get(title, 0) + 1
        yield (title if title and seen[title] == 1 else f"{title} {seen[title]}".strip()), row


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
