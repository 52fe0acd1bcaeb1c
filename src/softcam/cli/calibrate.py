"""`softcam calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show_json, show_table

SUMMARY = "Fit probabilities and prediction sets that can be believed on validation images, and verify them"
EXAMPLES = """\
  softcam calibrate runs/elpv --data elpv/manifest.csv
  softcam calibrate model --data manifest.csv --alpha 0.05 --score aps --out calibrated
  softcam calibrate model --data manifest.csv --thresholds sensitivity=0.9
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder, or run folder of a training")
    parser.add_argument("--data", type=Path, required=True, help="manifest, or folder with one subfolder per class")
    parser.add_argument(
        "--split", type=str, default="val", help="split of the manifest that the model is calibrated on"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="share of images whose prediction set may miss the true class"
    )
    parser.add_argument(
        "--score", choices=("lac", "aps"), default="lac",
        help="lac: the smallest sets; aps: sets that are larger where an image is harder",
    )  # fmt: skip
    parser.add_argument(
        "--thresholds", type=str, default=None, metavar="RULE",
        help="choose the thresholds anew: youden, f1, sensitivity=0.9 or specificity=0.9; default: no decision changes",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=None, help="folder of a copy; default: the model itself changes")
    parser.add_argument("--batch-size", type=int, default=8, help="images per forward pass")
    parser.add_argument("--device", type=str, default=None, help="torch device, such as cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument("--json", action="store_true", help="print what was chosen and measured as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Calibrate, write the description of the model, print what was measured."""
    from softcam.bundle import find_bundle, read_config, update
    from softcam.data import read_manifest
    from softcam.evaluation import CalibrationSettings, calibrate
    from softcam.metrics import ThresholdRule

    model = find_bundle(options.model)
    settings = CalibrationSettings(
        split=options.split,
        alpha=options.alpha,
        score=options.score,
        batch_size=options.batch_size,
        device=options.device,
        seed=options.seed,
        thresholds=None if options.thresholds is None else ThresholdRule.parse(options.thresholds),
    )
    manifest = read_manifest(options.data, classes=read_config(model).classes)
    with progress() as report:
        result = calibrate(model, manifest, settings=settings, progress=report)
    folder = update(model, result.config, out=options.out)
    if options.json:
        show_json({**result.metrics, "out": str(folder)})
    else:
        _show(result.metrics)
    if options.thresholds is not None:
        chosen = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics["thresholds"]["calibrated"].items())
        say(f"thresholds by {options.thresholds}: {chosen}")
    for note in result.metrics["notes"]:
        say(note)
    for failure in result.failures:
        say(f"left out {failure.image}: {failure.reason}")
    say(f"calibration written to {folder}; repeat an evaluation to see it in the report")
    return 1 if result.failures else 0


def _show(metrics: Mapping[str, Any]) -> None:
    measured = [found for found in (metrics["fit"], metrics["verification"]) if found is not None]
    rows = [
        ("images", *(str(found["n"]) for found in measured)),
        *(
            (f"{title}, {name}", *(_estimate(found[key][name]) for found in measured))
            for key, title in (("nll", "negative log-likelihood"), ("ece", "calibration error"))
            for name in ("raw", "calibrated")
        ),
        ("area under the risk-coverage curve", *(_estimate(found["selective"]["area"]) for found in measured)),
        ("decisions that changed", *(str(found["changed_decisions"]) for found in measured)),
    ]
    if metrics["quantile"] is not None:
        title = f"sets with the true class (promised {1 - metrics['alpha']:g})"
        rows += [
            (title, *(_estimate(found["sets"]["coverage"]) for found in measured)),
            ("classes in a set", *(_estimate(found["sets"]["size"]["mean"]) for found in measured)),
        ]
    head = (f"temperature {metrics['temperature']:.4g}", *(found["split"] for found in measured))
    show_table(head, rows)


def _estimate(found: Any) -> str:
    if not isinstance(found, Mapping):
        return f"{found:.3f}"
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
