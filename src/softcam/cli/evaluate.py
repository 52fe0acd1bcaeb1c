"""`softcam evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show_headline, show_json
from softcam.cli.parsing import add_augment

SUMMARY = "Measure accuracy and explanations on test images, against post-hoc methods, and write a report"
EXAMPLES = """\
  softcam evaluate runs/elpv --data elpv/manifest.csv --out evaluation
  softcam evaluate model --data test.csv --black-box twin --out evaluation
  softcam evaluate model --data test.csv --methods evidence grad_cam grad_cam@blocks.2 occlusion --out evaluation
  softcam evaluate dense --data test.csv --others sparse=runs/sparse --black-box twin --out evaluation
  softcam evaluate model --data test.csv --explained 600 --engine openvino --out evaluation
  softcam evaluate model --data test.csv --augment flips --out evaluation
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder, or run folder of a training")
    parser.add_argument("--data", type=Path, required=True, help="manifest, or folder with one subfolder per class")
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics, tables, figures and report")
    parser.add_argument("--black-box", type=Path, default=None, help="model or run folder of the black-box twin")
    parser.add_argument("--split", type=str, default="test", help="split of the manifest that is measured")
    parser.add_argument(
        "--others", nargs="+", default=(), help="further SoftCAM models to compare, each as name=folder of model or run"
    )
    parser.add_argument(
        "--methods", nargs="+", default=None,
        help="explanation methods to compare, method@module for another layer; default: the usual ones",
    )  # fmt: skip
    parser.add_argument(
        "--measures", nargs="+", default=None, help="what is measured of the maps, or all; default: what is cheap"
    )
    parser.add_argument("--explained", type=int, default=48, help="images on which explanations are compared")
    parser.add_argument(
        "--explained-class", type=str, default="reported",
        help="class whose map is asked of every method: the one that the model reports, or the most_probable",
    )  # fmt: skip
    parser.add_argument("--explained-labels", nargs="+", default=(), help="classes whose images are explained")
    parser.add_argument("--explained-slowly", type=int, default=8, help="how many of them the slow methods explain")
    parser.add_argument(
        "--engine", type=str, default="torch",
        help="what runs the many forward passes on changed images: torch, or openvino, faster on a CPU",
    )  # fmt: skip
    add_augment(parser, " of the SoftCAM models over flipped or turned views of each image")
    parser.add_argument("--margin", type=float, default=0.02, help="non-inferiority margin of the AUROC")
    parser.add_argument("--seed", type=int, default=0, help="seed of subsamples and bootstrap")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Evaluate, write the report, print the headline table; what was measured before is taken from the folder."""
    from softcam.bundle import find_bundle, read_config
    from softcam.data import read_manifest
    from softcam.evaluation import MEASURES, EvaluationSettings, evaluate, write_evaluation
    from softcam.reporting import write_report
    from softcam.runs import hold

    model = find_bundle(options.model)
    settings = EvaluationSettings(
        split=options.split,
        methods=EvaluationSettings.methods if options.methods is None else tuple(options.methods),
        measures=_choose_measures(options.measures, MEASURES, EvaluationSettings.measures),
        explained=options.explained,
        explained_class=options.explained_class,
        explained_labels=tuple(options.explained_labels),
        explained_slowly=options.explained_slowly,
        engine=options.engine,
        augment=options.augment,
        margin=options.margin,
        seed=options.seed,
    )
    manifest = read_manifest(options.data, classes=read_config(model).classes)
    twin = None if options.black_box is None else find_bundle(options.black_box)
    others = {name: find_bundle(path) for name, path in _read_names(options.others).items()}
    keep = options.out / "measured"
    with hold(options.out):
        with progress() as report:
            result = evaluate(
                model, manifest, black_box_path=twin, others=others, settings=settings, keep=keep, progress=report
            )
        write_evaluation(result, options.out)
        page = write_report(result, options.out)
    show_json(result.metrics) if options.json else show_headline(result.metrics)
    say(f"report written to {page}")
    counts = result.metrics["counts"]
    return 1 if counts["failed"] or counts["failed_masks"] else 0


def _choose_measures(asked: list[str] | None, every: tuple[str, ...], usual: tuple[str, ...]) -> tuple[str, ...]:
    if asked is None:
        return usual
    return every if asked == ["all"] else tuple(asked)


def _read_names(texts: Sequence[str]) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for name, path in map(_split_name, texts):
        if name in names:
            raise ValueError(f"Expected --others to name each model once, but got {name!r} twice.")
        names[name] = path
    return names


def _split_name(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ValueError(f"Expected --others to be name=folder, but got {text!r}.")
    return name, Path(path)
