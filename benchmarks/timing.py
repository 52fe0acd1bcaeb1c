"""Times of several calls, taken in turn so that a change of the machine's pace meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Calls = Mapping[str, Callable[[], object]]


def time_in_turn(calls: Calls, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each call in each repeat, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        # Every other round backwards, so that none always follows the same other.
        for name, call in list(calls.items())[:: 1 if repeat % 2 else -1]:
            started = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def summarize(seconds: Mapping[str, list[float]], reference: str) -> dict[str, Any]:
    """Return medians in ms and, but for the reference, ratios to it within each repeat; of all, the quartiles too."""
    row: dict[str, Any] = {}
    for call, times in seconds.items():
        row[f"{call}_ms"] = round(1000 * statistics.median(times), 3)
        row[f"{call}_ms_quartiles"] = find_quartiles([1000 * one for one in times], digits=3)
        if call != reference:
            ratios = [mine / theirs for mine, theirs in zip(times, seconds[reference], strict=True)]
            row[f"{call}_ratio"] = round(statistics.median(ratios), 4)
            row[f"{call}_ratio_range"] = [round(min(ratios), 4), round(max(ratios), 4)]
            row[f"{call}_ratio_quartiles"] = find_quartiles(ratios)
    return row


def find_quartiles(values: Sequence[float], *, digits: int = 4) -> list[float]:
    """Return the first and the third quartile; of a single value, that value twice."""
    if len(values) < 2:
        return [round(values[0], digits)] * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [round(low, digits), round(high, digits)]
