"""`softcam data prepare | check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show, show_json
from softcam.cli.parsing import create_command

SUMMARY = "Prepare a data set, or check a manifest before work starts"
EXAMPLES = """\
  softcam data prepare elpv --out elpv
  softcam data check elpv/manifest.csv
  softcam data check images/ --decode    (a folder with one subfolder per class; opens every image)
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the two actions and their flags."""
    actions = parser.add_subcommands(dest="action", metavar="ACTION")
    prepare = create_command("Write a built-in data set as images and a manifest", EXAMPLES)
    actions.add_subcommand("prepare", prepare, help="write a built-in data set")
    prepare.add_argument("source", type=str, help="name of the source, such as elpv")
    prepare.add_argument("--out", type=Path, required=True, help="folder for images and manifest")
    prepare.add_argument("--seed", type=int, default=0, help="seed of the split")
    check = create_command("Name everything that is wrong with a manifest, with row numbers", EXAMPLES)
    actions.add_subcommand("check", check, help="check a manifest")
    check.add_argument("manifest", type=Path, help="CSV, Parquet, or a folder with one subfolder per class")
    check.add_argument("--classes", type=str, nargs="+", default=None, help="class names, in the order of the logits")
    check.add_argument("--decode", action="store_true", help="also open every image")
    check.add_argument("--json", action="store_true", help="print the problems as JSON")


def run(options: Any) -> int:
    """Run the chosen action."""
    return _prepare(options.prepare) if options.action == "prepare" else _check(options.check)


def _prepare(options: Any) -> int:
    from softcam.data.sources import prepare_source

    manifest = prepare_source(options.source, options.out, seed=options.seed)
    show(f"{len(manifest)} images: {options.out / 'manifest.csv'}")
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
