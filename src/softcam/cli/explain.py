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
  softcam explain model study.zip /media/cdrom/DICOMDIR --out explained
  softcam explain model cine.dcm --frames 12 --out explained
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("paths", type=str, nargs="+", help="image files, folders, zip archives and DICOMDIRs")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables, evidence and overlays")
    parser.add_argument(
        "--frames", type=str, default="each", help="'each' or the number of the one to take, where a file holds several"
    )
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
    from softcam.reporting.explanations import Products, explain

    frames = _read_frames(options.frames)
    predictor = Predictor(find_bundle(options.model), batch_size=options.batch_size, device=options.device)
    with progress() as report:
        summary = explain(
            predictor,
            options.paths,
            options.out,
            products=Products(overlays=not options.no_overlays, arrays=not options.no_arrays),
            frames=frames,
            progress=report,
        )
    if options.json:
        show_json({"done": summary.done, "failed": summary.failed, "out": str(options.out)})
    else:
        show(f"{summary.done} explained, {summary.failed} failed: {options.out / 'predictions.csv'}")
    if summary.failed:
        say(f"{summary.failed} inputs failed; {options.out / 'failures.csv'} says why")
    return 1 if summary.failed else 0


def _read_frames(text: str) -> Any:
    if text != "each" and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"Expected --frames to be 'each' or a whole number of at least 1, but got {text!r}.")
    return "each" if text == "each" else int(text)
