"""`softcam explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show, show_json

SUMMARY = "Predict images and write the evidence of each prediction"
EXAMPLES = """\
  softcam explain model images/ --out explained
  softcam explain model a.png b.tif --out explained --no-overlays
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("paths", type=str, nargs="+", help="image files and folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables, evidence and overlays")
    parser.add_argument("--batch-size", type=int, default=8, help="images per forward pass")
    parser.add_argument("--device", type=str, default=None, help="torch device, such as cpu or cuda")
    parser.add_argument("--no-overlays", action="store_true", help="write no pictures")
    parser.add_argument("--no-arrays", action="store_true", help="write no evidence arrays")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Explain every input; a bad one is named and the rest goes on."""
    from softcam.bundle import find_bundle
    from softcam.predict import Predictor
    from softcam.reporting.explanations import explain

    predictor = Predictor(find_bundle(options.model), batch_size=options.batch_size, device=options.device)
    with progress() as report:
        summary = explain(
            predictor,
            options.paths,
            options.out,
            overlays=not options.no_overlays,
            arrays=not options.no_arrays,
            progress=report,
        )
    if options.json:
        show_json({"done": summary.done, "failed": summary.failed, "out": str(options.out)})
    else:
        show(f"{summary.done} explained, {summary.failed} failed: {options.out / 'predictions.csv'}")
    if summary.failed:
        say(f"{summary.failed} inputs failed; {options.out / 'failures.csv'} says why")
    return 1 if summary.failed else 0
