"""`softcam sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show, show_json, show_table

SUMMARY = "Find the most local place of the evidence layer that keeps the black box's AUROC on validation data"
EXAMPLES = """\
  softcam sweep --config elpv-demo --out sweep
  softcam sweep --config my-recipe.yaml --at pooling 16 8 16+32 --out sweep
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--config", type=str, required=True, help="recipe: a YAML file, or the name of a built-in one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, sweep.csv, sweep.png, sweep.json")
    parser.add_argument(
        "--at", type=str, nargs="+", default=None, help="places: pooling, a stride, a module, or several joined by +"
    )
    parser.add_argument("--margin", type=float, default=0.02, help="loss of AUROC that is accepted")
    parser.add_argument("--located", type=int, default=32, help="images on which locality is measured")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of images")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: Any) -> int:
    """Train and measure at every place, print the table and what the rule chooses."""
    from softcam.sweep import SweepSettings, sweep, write_sweep
    from softcam.sweep.places import parse_place
    from softcam.training import read_recipe

    places = None if options.at is None else tuple(parse_place(text) for text in options.at)
    settings = SweepSettings(places=places, margin=options.margin, located=options.located, seed=options.seed)
    result = sweep(read_recipe(options.config), options.out, settings=settings, say=say)
    write_sweep(result, options.out)
    if options.json:
        show_json(result.to_dict())
    else:
        table = result.table()
        names = [name for name in table.columns if name not in ("seconds", "modules", "shares")]
        show_table(names, [tuple(_show(row[name]) for name in names) for _, row in table.iterrows()])
        show(str(result))
    say(f"curve: {options.out / 'sweep.png'}")
    return 0


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
