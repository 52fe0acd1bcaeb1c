"""The tables of docs/explanation/reliability.md, of whatever was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Result = Mapping[str, Any]


def list_tables() -> dict[str, Callable[[], str]]:
    """Return what renders each table, by the name of its place in the page."""
    return {
        "figures": render_figures,
        "full-disk": render_full_disk,
        "mutation": render_mutation,
        "rooms": render_rooms,
    }


def render_figures() -> str:
    """Return one row for each promise: what was measured, and by which command."""
    lines = ["| what | figure | measured by |", "|---|---|---|"]
    for name, part, command, figure in FIGURES:
        result = _read(name)
        found = result if result is None or not part else result.get(part)
        if found is not None:
            what, value = figure(found)
            lines.append(f"| {what} | {value} | `{found.get('command', command)}` |")
    return "\n".join(lines) + "\n"


def render_full_disk() -> str:
    """Return what came of each command on disks that were too small."""
    if (result := _read("full_disk")) is None:
        return "`python benchmarks/full_disk.py` measures it.\n"
    lines = ["| command | writes | disks too small | unclear messages | torn files | different results |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [
        f"| {row['command']} | {row['kib']} KiB | {row['sizes']} | {len(row['unclear'])} | {len(row['torn'])} "
        f"| {len(row['different'])} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def render_mutation() -> str:
    """Return how many faults a test noticed."""
    if (result := _read("mutation")) is None:
        return "`python benchmarks/mutation.py` measures it.\n"
    lines = ["| faults in | tried | noticed | share (95 % interval) | unnoticed, of no effect | unnoticed |"]
    lines += ["|---|---|---|---|---|---|"]
    for title, part in (("nn and metrics, a sample", result["sample"]), ("the penalties, all", result["penalties"])):
        if part is not None:
            left = part["tried"] - part["killed"]
            lines.append(
                f"| {title} | {part['tried']} | {part['killed']} | {_share(part)} | {part['equivalent']} "
                f"| {left - part['equivalent']} |"
            )
    return "\n".join(lines) + "\n"


def render_rooms() -> str:
    """Return lines and branches that tests run, by room."""
    if (result := _read("branch_coverage")) is None:
        return "`make coverage` measures it.\n"
    least = "" if result.get("complete", True) else ", at least"
    lines = [f"| room | lines | run{least} | branches | taken both ways{least} |", "|---|---|---|---|---|"]
    lines += [f"| {room} | {' | '.join(_parts(row))} |" for room, row in result["rooms"].items()]
    return "\n".join(lines) + "\n"


def _parts(row: Result) -> Iterator[str]:
    """Yield how many lines and branches there are, each with the share that tests run."""
    for known, run in (("num_statements", "covered_lines"), ("num_branches", "covered_branches")):
        yield f"{row[known]:,}"
        yield f"{row[run] / row[known]:.1%}" if row[known] else ""


def _read(name: str) -> Result | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _killed(result: Result) -> tuple[str, str]:
    rows = result["rows"]
    kills = sum(row["kills"] for row in rows)
    return (
        "SIGKILL at random moments of " + ", ".join(row["command"] for row in rows),
        f"{kills} kills: {_count(rows, 'torn')} torn files, {_count(rows, 'different')} different results",
    )


def _filled(result: Result) -> tuple[str, str]:
    rows = result["rows"]
    sizes = sum(row["sizes"] for row in rows)
    unclear, torn, different = (_count(rows, name) for name in ("unclear", "torn", "different"))
    return (
        "disks too small for " + ", ".join(row["command"] for row in rows),
        f"{sizes} disks: {unclear} unclear messages, {torn} torn files, {different} different results with room",
    )


def _count(rows: list[Result], name: str) -> int:
    return sum(len(row[name]) for row in rows)


def _corpus(found: Any) -> tuple[str, str]:
    return (
        "malformed images and DICOM files",
        f"{found['refused']} of {found['files']} refused for the expected reason, within {found['longest_seconds']} s",
    )


def _fuzz(found: Any) -> tuple[str, str]:
    runs = sum(found["runs"].values())
    return (
        f"fuzzing of {', '.join(sorted(found['runs']))}",
        f"{runs:,} inputs in {found['seconds']} s each: {len(found['failed'])} findings",
    )


def _malicious(found: Any) -> tuple[str, str]:
    return (
        "data that would run code, leave its folder or speak to a spreadsheet",
        f"{found['held']} of {found['inputs']} held back",
    )


def _records(found: Any) -> tuple[str, str]:
    changes, noticed = (sum(kind[name] for kind in found.values()) for name in ("changes", "found"))
    return f"changes to signed records ({', '.join(found)})", f"{noticed} of {changes} found"


def _sets(found: Any) -> tuple[str, str]:
    held = ", ".join(f"{share:.4f} ({score})" for score, share in found["held"].items())
    return (
        "prediction sets that hold the truth",
        f"{held}, promised {found['promised']:.2f}; {found['splits']} splits of {found['images']} drawn images",
    )


def _mutated(result: Result) -> tuple[str, str]:
    part = result["sample"]
    return f"small faults in nn and metrics, {part['tried']} of {result['faults']:,} drawn", f"{_share(part)} noticed"


def _share(part: Result) -> str:
    low, high = part["interval"]
    return f"{part['share']:.1%} ({low:.1%} to {high:.1%})"


def _covered(result: Result) -> tuple[str, str]:
    lines, lines_run, branches, branches_run = _parts(result["rooms"]["all"])
    least = "" if result.get("complete", True) else "at least "
    return (
        f"{lines} lines and {branches} branches of the package",
        f"{least}{lines_run} of the lines run by tests, {least}{branches_run} of the branches both ways",
    )


_SCRIPT = "python benchmarks/{}.py"
_PART = "python benchmarks/safeguards.py --parts {}"
FIGURES: tuple[tuple[str, str, str, Callable[[Any], tuple[str, str]]], ...] = (
    ("crash_safety", "", _SCRIPT.format("crash_safety"), _killed),
    ("full_disk", "", _SCRIPT.format("full_disk"), _filled),
    ("safeguards", "corpus", _PART.format("corpus"), _corpus),
    ("safeguards", "fuzz", _PART.format("fuzz"), _fuzz),
    ("safeguards", "malicious", _PART.format("malicious"), _malicious),
    ("safeguards", "records", _PART.format("records"), _records),
    ("safeguards", "sets", _PART.format("sets"), _sets),
    ("mutation", "", "make mutate", _mutated),
    ("branch_coverage", "", "make coverage", _covered),
)
"""Of each figure: the result that has it, the part of it, the command, and what makes its row."""
