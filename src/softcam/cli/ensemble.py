"""`softcam ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show, show_json

SUMMARY = "Join several models of the same task into one, whose logits and maps are the means of theirs"
EXAMPLES = """\
  softcam ensemble runs/seed0 runs/seed1 runs/seed2 --out committee
  softcam ensemble fine coarse --out both
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("models", type=Path, nargs="+", help="model folders, or run folders of trainings")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Join them, and say what the new model still lacks."""
    from softcam.bundle import find_bundle, join_bundles, read_config

    bundles = [find_bundle(path) for path in options.models]
    folder = join_bundles(bundles, options.out)
    fingerprint = read_config(folder).fingerprint
    if options.json:
        show_json({"out": str(folder), "members": len(bundles), "fingerprint": fingerprint})
    else:
        show(f"{len(bundles)} models joined: {folder}")
    if any(read_config(bundle).thresholds or read_config(bundle).calibration for bundle in bundles):
        say("thresholds and calibrations are the members' own: softcam calibrate --thresholds youden finds new ones")
    return 0
