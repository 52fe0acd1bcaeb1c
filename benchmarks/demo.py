"""Run the demo as a user does and keep its headline numbers: `python benchmarks/demo.py [--full]`.

With `--collect FOLDER` the numbers of a demo that has been run already are kept instead; its time is then the sum of
the times that its two trainings and its evaluation recorded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from environment import describe_environment

from softcam.files import write_atomic

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="train every layer")
    parser.add_argument("--out", type=Path, default=None, help="keep the demo's folder here")
    parser.add_argument("--collect", type=Path, default=None, help="folder of a demo that has been run already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.collect or options.out or Path(scratch) / "demo"
        seconds = None if options.collect else run_demo(out, full=options.full)
        result = collect(out, full=options.full, seconds=seconds)
    name = "demo_full" if options.full else "demo"
    write_atomic(RESULTS / f"{name}.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("seconds", "noninferiority")}, indent=2))


def run_demo(out: Path, *, full: bool) -> float:
    """Run the command in a process of its own and return its wall time in seconds."""
    flags = ["--full"] if full else []
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "softcam", "demo", "--out", str(out), *flags], check=True)
    return time.perf_counter() - started


def collect(out: Path, *, full: bool, seconds: float | None) -> dict[str, Any]:
    """Return the headline numbers of a demo's folder; without `seconds`, the recorded times of its parts add up."""
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    provenance = json.loads((out / "evaluation" / "provenance.json").read_text(encoding="utf-8"))
    runs = {name: json.loads((out / "runs" / name / "run.json").read_text()) for name in ("model", "black_box")}
    parts = {name: run["seconds"] for name, run in runs.items()} | {"evaluation": provenance["seconds"]["total"]}
    kept = ("classification", "black_box", "noninferiority", "identity", "consistency", "counts", "comparisons")
    return {
        "command": "softcam demo --full" if full else "softcam demo",
        "environment": describe_environment(seeds=[0]),
        "seconds": round(sum(parts.values()) if seconds is None else seconds, 1),
        "seconds_by_part": {name: round(value, 1) for name, value in parts.items()},
        **{key: metrics[key] for key in kept},
        "benchmark": pd.read_csv(out / "evaluation" / "benchmark.csv")
        .astype(object)
        .where(pd.notna, None)
        .to_dict("records"),
    }


if __name__ == "__main__":
    main()
