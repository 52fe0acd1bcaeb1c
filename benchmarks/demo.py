"""Run the demo as a user does and keep its headline numbers: `python benchmarks/demo.py [--full]`."""

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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(options.out or Path(scratch) / "demo", full=options.full)
    name = "demo_full" if options.full else "demo"
    write_atomic(RESULTS / f"{name}.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("seconds", "noninferiority")}, indent=2))


def measure(out: Path, *, full: bool) -> dict[str, Any]:
    flags = ["--full"] if full else []
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "softcam", "demo", "--out", str(out), *flags], check=True)
    seconds = round(time.perf_counter() - started, 1)
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    runs = {name: json.loads((out / "runs" / name / "run.json").read_text()) for name in ("model", "black_box")}
    kept = ("classification", "black_box", "noninferiority", "identity", "consistency", "counts", "comparisons")
    return {
        "command": " ".join(["softcam demo", *flags]),
        "environment": describe_environment(),
        "seconds": seconds,
        "training_seconds": {name: run["seconds"] for name, run in runs.items()},
        **{key: metrics[key] for key in kept},
        "benchmark": pd.read_csv(out / "evaluation" / "benchmark.csv").to_dict("records"),
    }


if __name__ == "__main__":
    main()
