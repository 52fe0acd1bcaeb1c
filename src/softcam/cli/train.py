"""`softcam train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show_json, show_table

SUMMARY = "Train a model from a recipe; the same command continues an interrupted run"
EXAMPLES = """\
  softcam train --config elpv-demo --out runs/elpv
  softcam train --config my-recipe.yaml --out runs/mine
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--config", type=str, required=True, help="recipe: a YAML file, or the name of a built-in one")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--black-box", action="store_true", help="train the recipe's black-box twin instead")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def run(options: Any) -> int:
    """Train, print the validation metrics."""
    from softcam.training import read_recipe, train

    recipe = read_recipe(options.config)
    result = train(recipe.twin() if options.black_box else recipe, options.out)
    if options.json:
        show_json({"model": str(result.model_path), "seconds": result.seconds, "metrics": dict(result.metrics)})
    else:
        show_table(("validation metric", "value"), [(name, f"{value:.4f}") for name, value in result.metrics.items()])
    say(f"model written to {result.model_path}")
    return 0
