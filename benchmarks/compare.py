"""Compare two results of the benchmarks: `python benchmarks/compare.py OLD NEW [--out page.html] [--fail-over 1.2]`.

OLD and NEW are files of results, or folders of them, of which those of the same name are compared. A gain of 2 means
twice as good: half the time or memory, twice the rate. It is called better or worse where the quartiles of both sides
leave no other sign; a figure without recorded spread has to differ by more than 10 %. Times, rates and memory of
different machines are shown and not judged, ratios within one run are. The exit code is 0, or with `--fail-over` 1 if
any figure became worse by more than that factor, beyond noise.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from measured import Change, compare_figures, list_figures

from softcam.files import write_atomic
from softcam.reporting.figures import PALETTE

HERE = Path(__file__).parent
VERDICTS = ("worse", "better", "within noise", "not judged")
MARKS = {"worse": "✗", "better": "✓", "within noise": "=", "not judged": ""}
SPAN = math.log(4)
"""Half of the axis of gains: from a quarter to four times."""


@dataclass(frozen=True)
class Comparison:
    """Two files of results of one benchmark.

    Args:
        name: Of the benchmark.
        changes: The figures that both have.
        differences: What differs between machines and versions, one sentence each.
        dates: When they were measured.
        missing: How many figures only the old and only the new file has.
    """

    name: str
    changes: tuple[Change, ...]
    differences: tuple[str, ...]
    dates: tuple[str, str]
    missing: tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="file or folder of results")
    parser.add_argument("new", type=Path, help="file or folder of results")
    parser.add_argument("--out", type=Path, default=None, help="HTML page to write")
    parser.add_argument("--fail-over", type=float, default=None, help="factor, above 1")
    options = parser.parse_args(arguments)
    if options.fail_over is not None and not options.fail_over >= 1:
        parser.error(f"Expected `--fail-over` to be at least 1, but got {options.fail_over}.")
    old, new = read_results(options.old), read_results(options.new)
    if not (common := [name for name in new if name in old]):
        parser.error(f"Expected results of the same benchmark, but got {', '.join(old)} and {', '.join(new)}.")
    found = [compare(name, old[name], new[name]) for name in common]
    alone = {"only before": sorted(set(old) - set(new)), "only after": sorted(set(new) - set(old))}
    sys.stdout.write(render_text(found, alone))
    if options.out is not None:
        write_atomic(options.out, render_page(found, alone))
    limit = options.fail_over
    worse = [change for one in found for change in one.changes if change.verdict == "worse"]
    return int(limit is not None and any(change.gain < 1 / limit for change in worse))


def read_results(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return what files of results hold, by name.

    Args:
        path: A file, whose name does not count, or a folder.

    Raises:
        SystemExit: If there are none, or one is no file of results.
    """
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not paths or not all(entry.is_file() for entry in paths):
        raise SystemExit(f"Expected a file or a folder of results, but {path} has none.")
    return {entry.stem if path.is_dir() else "results": _read(entry) for entry in paths}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise SystemExit(f"Expected {path} to be JSON, but it is not.") from None
    if not isinstance(result, dict):
        raise SystemExit(f"Expected {path} to hold results, but it holds {type(result).__name__}.")
    return result


def compare(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Return what two files of results of one benchmark say about each other."""
    before, after = set(list_figures(old)), set(list_figures(new))
    return Comparison(
        name=name,
        changes=tuple(compare_figures(old, new)),
        differences=tuple(list_differences(old, new)),
        dates=tuple(str(one.get("environment", {}).get("date", "date not recorded"))[:16] for one in (old, new)),  # type: ignore[arg-type]
        missing=(len(before - after), len(after - before)),
    )


def list_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what differs between machine, versions and setting of two files of results."""
    found = []
    for title, keys in (
        ("", ("environment", "machine")),
        ("", ("environment", "versions")),
        ("setting: ", ("setting",)),
    ):
        sides = [_follow(one, keys) for one in (old, new)]
        for name in dict.fromkeys([*sides[0], *sides[1]]):
            values = [side.get(name, "not recorded") for side in sides]
            if values[0] != values[1]:
                found.append(f"{title}{name} {values[0]} → {values[1]}")
    return found


def _follow(result: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    for key in keys:
        result = result.get(key) or {}
    return result


def render_text(found: Sequence[Comparison], alone: Mapping[str, Sequence[str]]) -> str:
    """Return the summary: what differs, what became worse or better, and the counts."""
    lines = [f"{title}: {', '.join(names)}" for title, names in alone.items() if names]
    lines += [f"differs: {difference}" for difference in join_differences(found)]
    for one in found:
        counts = count(one.changes)
        lines.append(f"{one.name}: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS))
        for verdict in ("worse", "better"):
            chosen = [change for change in rank(one.changes) if change.verdict == verdict]
            lines += [f"  {verdict}: {describe(change)}" for change in chosen]
    return "\n".join(lines) + "\n"


def describe(change: Change) -> str:
    name = " / ".join(change.new.name)
    values = f"{show(change.old.value)} → {show(change.new.value)}"
    return f"{name}: {values}, gain {change.gain:.3g} ({change.low:.3g} to {change.high:.3g})"


def count(changes: Sequence[Change]) -> Counter[str]:
    return Counter(change.verdict for change in changes)


def show(value: float) -> str:
    """Return a number with as many digits as a reader can use.

    Example:
        >>> show(1234.5), show(0.98765)
        ('1,234', '0.988')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def render_page(found: Sequence[Comparison], alone: Mapping[str, Sequence[str]]) -> str:
    """Return the page; it holds all it shows and runs no script."""
    loader = ChoiceLoader([FileSystemLoader(HERE), PackageLoader("softcam.reporting")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"show": show, "place": place}
    total = count([change for one in found for change in one.changes])
    counts = {one.name: count(one.changes) for one in found}
    page = environment.get_template("compare.html.j2").render(
        palette=PALETTE, found=found, alone=alone, total=total, counts=counts, verdicts=VERDICTS, marks=MARKS,
        ranked=rank, differences=join_differences(found),
    )  # fmt: skip
    return page.lstrip() + "\n"


def rank(changes: Sequence[Change]) -> list[Change]:
    """Return changes, what matters most first."""
    return sorted(changes, key=lambda change: (VERDICTS.index(change.verdict), change.gain))


def join_differences(found: Sequence[Comparison]) -> list[str]:
    """Return what differs between machines, versions and settings of all benchmarks, each once."""
    return list(dict.fromkeys(difference for one in found for difference in one.differences))


def place(gain: float) -> float:
    """Return where a gain lies on the axis, in per cent from the left; 1 is in the middle.

    Example:
        >>> place(1.0), place(2.0), place(100.0)
        (50.0, 75.0, 100.0)
    """
    if not gain > 0:
        return 0.0
    return round(50 * (1 + max(-1.0, min(1.0, math.log(gain) / SPAN))), 2)


if __name__ == "__main__":
    sys.exit(main())
