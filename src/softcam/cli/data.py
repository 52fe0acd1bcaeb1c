"""`softcam data prepare | synthesize | check`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import progress, say, show, show_json
from softcam.cli.parsing import create_command

SUMMARY = "Prepare a data set, draw one, or check a manifest before work starts"
EXAMPLES = """\
  softcam data prepare elpv --out elpv
  softcam data prepare kaggle-dr downloads/diabetic-retinopathy --out kaggle-dr --labels grades
  softcam data prepare retinal-oct downloads/ZhangLabData.zip --out retinal-oct
  softcam data prepare rsna downloads/rsna-pneumonia-detection-challenge.zip --out rsna
  softcam data prepare rsna downloads/rsna --splits authors_splits --out rsna    (the splits of the paper)
  softcam data prepare idrid downloads/Segmentation --out idrid
  softcam data synthesize lesions --images 2000 --out lesions
  softcam data synthesize radiograph --difficulty hard --shortcut --out radiographs
  softcam data synthesize rsna --images 500 --out rsna-download    (as downloaded: DICOM files, boxes, classes)
  softcam data check elpv/manifest.csv
  softcam data check images/ --decode    (a folder with one subfolder per class; opens every image)
"""

KINDS = {
    "lesions": "fundus photographs with retinal lesions",
    "oct": "B-scans of the retina with drusen",
    "radiograph": "radiographs of the chest with opacities",
    "kaggle-dr": "the download of Kaggle's Diabetic Retinopathy Detection",
    "retinal-oct": "the download of Kermany's retinal OCT",
    "rsna": "the download of the RSNA Pneumonia Detection Challenge",
}
"""Kinds of drawn images, and data sets whose download is drawn; listed here as well so that --help is instant."""


SIZES = "side of an image in pixels (default 224), or its height (kaggle-dr 900, retinal-oct 496, rsna 1024)"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the actions and their flags."""
    actions = parser.add_subcommands(dest="action", metavar="ACTION")
    prepare = create_command("Write a built-in or downloaded data set as images and a manifest", EXAMPLES)
    actions.add_subcommand("prepare", prepare, help="write a data set as images and a manifest")
    _add_preparation(prepare)
    synthesize = create_command("Draw images whose findings are known to the pixel", EXAMPLES)
    actions.add_subcommand("synthesize", synthesize, help="draw images with exact masks")
    synthesize.add_argument("what", choices=KINDS, help="; ".join(f"{kind}: {title}" for kind, title in KINDS.items()))
    synthesize.add_argument(
        "--out", type=Path, required=True, help="folder for images, masks and manifest or tables; begun work goes on"
    )
    synthesize.add_argument("--images", type=int, default=2000, help="how many")
    synthesize.add_argument("--size", type=int, default=None, help=SIZES)
    synthesize.add_argument("--seed", type=int, default=0, help="seed of everything")
    synthesize.add_argument("--difficulty", choices=["easy", "medium", "hard"], default="medium", help="contrast")
    synthesize.add_argument("--shortcut", action="store_true", help="a mark gives training labels away, not test ones")
    check = create_command("Name everything that is wrong with a manifest, with row numbers", EXAMPLES)
    actions.add_subcommand("check", check, help="check a manifest")
    check.add_argument("manifest", type=Path, help="CSV, Parquet, or a folder with one subfolder per class")
    check.add_argument("--classes", type=str, nargs="+", default=None, help="class names, in the order of the logits")
    check.add_argument("--decode", action="store_true", help="also open every image")
    check.add_argument("--json", action="store_true", help="print the problems as JSON")


def _add_preparation(prepare: ArgumentParser) -> None:
    prepare.add_argument("source", type=str, help="elpv, kaggle-dr, retinal-oct, rsna or idrid")
    prepare.add_argument("download", type=Path, nargs="?", default=None, help="folder or zip file, but for elpv")
    prepare.add_argument("--out", type=Path, required=True, help="folder for images and manifest; begun work goes on")
    prepare.add_argument(
        "--labels", type=str, default=None,
        help="kaggle-dr: onset1 (grade >= 1, default), onset2 (>= 2) or grades; retinal-oct: drusen (default) or "
        "classes; rsna: pneumonia (default; not normal but without opacity is left out) or pneumonia-all",
    )  # fmt: skip
    prepare.add_argument("--splits", type=Path, default=None, help="folder with the tables of published splits")
    prepare.add_argument(
        "--size", type=int, default=None, help="side of the images in pixels; default: 512, retinal-oct as they are"
    )
    prepare.add_argument("--workers", type=int, default=None, help="processes; default: one per core")
    prepare.add_argument("--seed", type=int, default=0, help="seed of the split")


def run(options: Any) -> int:
    """Run the chosen action."""
    actions = {"prepare": _prepare, "synthesize": _synthesize, "check": _check}
    return actions[options.action](options[options.action])


def _prepare(options: Any) -> int:
    from softcam.data.sources import prepare_source

    if options.download is not None:
        return _prepare_download(options)
    _refuse_missing(options.source)
    manifest = prepare_source(options.source, options.out, seed=options.seed)
    show(f"{len(manifest)} images: {options.out / 'manifest.csv'}")
    return 0


def _prepare_download(options: Any) -> int:
    from softcam.data.sources import PreparationSettings, prepare_download

    names = ("labels", "splits", "size", "seed", "workers")
    settings = PreparationSettings(**{name: getattr(options, name) for name in names})
    with progress() as report:
        found = prepare_download(
            options.source, options.download, options.out, settings, progress=partial(report, "prepare")
        )
    for split, counts in found.record["counts"].items():
        say(f"{split}: " + ", ".join(f"{count} {label}" for label, count in counts.items()))
    for note, count in found.record["notes"].items():
        say(f"{count} {note}")
    show(f"{len(found.manifest)} images: {options.out / 'manifest.csv'}")
    if found.skipped:
        show(f"{len(found.skipped)} skipped: {options.out / 'skipped.csv'}")
    return 1 if found.skipped else 0


def _refuse_missing(source: str) -> None:
    from softcam.data.sources import DOWNLOADS

    if source in DOWNLOADS:
        raise ValueError(f"Expected the downloaded folder or zip file after {source!r}, but got none. Name it.")


def _synthesize(options: Any) -> int:
    from softcam.data.synthesis import LAYOUTS, SynthesisSettings, default_size, synthesize, synthesize_layout

    what = options.what
    size = default_size(what) if options.size is None else options.size
    settings = SynthesisSettings(options.images, size, options.seed, options.difficulty, options.shortcut)
    with progress() as report:
        draw = synthesize_layout if what in LAYOUTS else synthesize
        draw(what, options.out, settings, progress=partial(report, "draw"))
    show(f"{options.images} images: {options.out if what in LAYOUTS else options.out / 'manifest.csv'}")
    return 0


def _check(options: Any) -> int:
    from softcam.data import check_manifest

    problems = check_manifest(options.manifest, classes=options.classes, decode=options.decode)
    if options.json:
        show_json({"problems": list(problems)})
    else:
        for problem in problems:
            show(problem)
    say(f"{len(problems)} problem(s) found" if problems else "no problem found")
    return 2 if problems else 0
