"""`softcam evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show_headline, show_json

SUMMARY = "Measure accuracy and explanations on test images, against post-hoc methods, and write a report"
EXAMPLES = """\
  softcam evaluate runs/elpv --data elpv/manifest.csv --out evaluation
  softcam evaluate model --data test.csv --black-box twin --out evaluation
  softcam evaluate model --data test.csv --methods evidence grad_cam occlusion --explained 200 --out evaluation
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder, or run folder of a training")
    parser.add_argument("--data", type=Path, required=True, help="manifest, or folder with one subfolder per class")
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics, tables, figures and report")
    parser.add_argument("--black-box", type=Path, default=None, help="model or run folder of the black-box twin")
    parser.add_argument("--split", type=str, default="test", help="split of the manifest that is measured")
    parser.add_argument(
        "--methods", nargs="+", default=None, help="explanation methods to compare; default: the usual ones"
    )
    parser.add_argument("--explained", type=int, default=48, help="images on which explanations are compared")
    parser.add_argument("--explained-slowly", type=int, default=8, help="how many of them the slow methods explain")
    parser.add_argument("--margin", type=float, default=0.02, help="non-inferiority margin of the AUROC")
    parser.add_argument("--seed", type=int, default=0, help="seed of subsamples and bootstrap")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Evaluate, write the report, print the headline table; what was measured before is taken from the folder."""
    from softcam.bundle import find_bundle, read_config
    from softcam.data import read_manifest
    from softcam.evaluation import EvaluationSettings, evaluate, write_evaluation
    from softcam.reporting import write_report

    model = find_bundle(options.model)
    settings = EvaluationSettings(
        split=options.split,
        methods=EvaluationSettings.methods if options.methods is None else tuple(options.methods),
        explained=options.explained,
        explained_slowly=options.explained_slowly,
        margin=options.margin,
        seed=options.seed,
    )
    manifest = read_manifest(options.data, classes=read_config(model).classes)
    twin = None if options.black_box is None else find_bundle(options.black_box)
    with progress() as report:
        result = evaluate(
            model, manifest, black_box_path=twin, settings=settings, keep=options.out / "measured", progress=report
        )
    write_evaluation(result, options.out)
    page = write_report(result, options.out)
    show_json(result.metrics) if options.json else show_headline(result.metrics)
    say(f"report written to {page}")
    return 1 if result.metrics["counts"]["failed"] else 0
