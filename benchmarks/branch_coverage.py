"""Measure which lines and branches of the package the tests run: `python benchmarks/branch_coverage.py`.

    python benchmarks/branch_coverage.py [--quick] [--processes 2] [--report FILE [--partial]]

Runs every test (`--quick`: those of `tests/unit/metrics`) under coverage, in threads and in all processes that they
start, or reads the JSON report of such a run. A branch counts as run when it was taken both ways. Writes
`benchmarks/results/branch_coverage.json`, by room; `make coverage` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from environment import describe_environment
from options import choose_out, create_parser

from softcam.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "softcam"
RESULT = ROOT / "benchmarks" / "results" / "branch_coverage.json"
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def run_tests(report: Path, *, quick: bool, processes: int) -> None:
    """Run the tests and write coverage's report."""
    places = ["tests/unit/metrics"] if quick else ["src", "tests"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(processes), "--dist", "worksteal", "--cov"]
    command += [f"--cov-report=json:{report}", "--cov-report=", *places]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode or not report.is_file():
        raise RuntimeError(f"Expected the tests to pass, but pytest ended with {done.returncode}.")


def summarize(report: dict[str, Any]) -> dict[str, Any]:
    """Return shares by room and in all, and the modules of which least is run."""
    rooms: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
    modules = []
    for name, entry in report["files"].items():
        # A test that copies the package elsewhere measures the copy too.
        if not (path := ROOT / name).is_relative_to(PACKAGE):
            continue
        inside = path.relative_to(PACKAGE).parts
        room = inside[0] if len(inside) > 1 else "(root)"
        for place in (room, "all"):
            for count in COUNTS:
                rooms[place][count] += entry["summary"][count]
        modules.append((share(entry["summary"]), "/".join(inside)))
    shares = {room: {**counts, "share": share(counts)} for room, counts in sorted(rooms.items())}
    return {"rooms": shares, "least": [{"module": name, "share": found} for found, name in sorted(modules)[:10]]}


def share(counts: dict[str, int]) -> float:
    """Return the share of lines and branches that are run, as coverage counts it."""
    total = counts["num_statements"] + counts["num_branches"]
    return round((counts["covered_lines"] + counts["covered_branches"]) / total, 4) if total else 1.0


def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = options.report or Path(folder) / "coverage.json"
        if options.report is None:
            run_tests(report, quick=options.quick, processes=options.processes)
        found = summarize(json.loads(report.read_text(encoding="utf-8")))
    environment = describe_environment(("torch", "coverage", "pytest", "pytest-cov"))
    result = {"command": "make coverage", "environment": environment, "complete": not options.partial, **found}
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(found["rooms"]["all"])
    return 0


if __name__ == "__main__":
    parser = create_parser(__doc__)
    parser.add_argument("--processes", type=int, default=2, help="that run tests")
    parser.add_argument("--report", type=Path, default=None, help="JSON report to read instead of running the tests")
    parser.add_argument("--partial", action="store_true", help="the report is of a run that was ended: a lower bound")
    sys.exit(main(parser.parse_args()))
