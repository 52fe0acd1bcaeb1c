"""`softcam demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show_headline, show_json

SUMMARY = "Do the main job end to end on 2,624 real images: convert, fine-tune, evaluate, report"
EXAMPLES = """\
  softcam demo --out demo
  softcam demo --full --out demo-full    (every layer is trained: up to an hour on two cores)
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything that is written")
    parser.add_argument("--full", action="store_true", help="train every layer instead of the last ones")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def run(options: Any) -> int:
    """Run the demo, print the headline table and where the report is."""
    from softcam.demo import run_demo

    with progress() as report:
        result = run_demo(options.out, full=options.full, say=say, progress=report)
    metrics = result.evaluation.metrics
    show_json(metrics) if options.json else show_headline(metrics)
    say("; ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items()))
    say(f"report: {result.report}")
    return 0
