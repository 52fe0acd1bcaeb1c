"""`softcam train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show_json, show_table

SUMMARY = "Train a model from a recipe; the same command continues an interrupted run"
EXAMPLES = """\
  softcam train --config elpv-demo --out runs/elpv
  softcam train --config my-recipe.yaml --out runs/mine
  softcam train --config rsna --data rsna/manifest.csv --set penalty.l1=2e-5 --out runs/rsna-sparse
  softcam train --config kaggle-dr --set model.backbone=torchvision:vgg16 --out runs/dr-vgg
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--config", type=str, required=True, help="recipe: a YAML file, or the name of a built-in one")
    parser.add_argument("--data", type=str, default=None, help="manifest, instead of the recipe's data.source")
    parser.add_argument(
        "--set", type=str, nargs="+", default=(), help="values to replace in the recipe, each as key=value"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--black-box", action="store_true", help="train the recipe's black-box twin instead")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def run(options: Any) -> int:
    """Train, print the validation metrics."""
    from softcam.training import change_recipe, read_recipe, train

    source = () if options.data is None else (f"data.source={json.dumps(options.data)}",)
    recipe = change_recipe(read_recipe(options.config), (*source, *options.set))
    result = train(recipe.twin() if options.black_box else recipe, options.out)
    if options.json:
        show_json({"model": str(result.model_path), "seconds": result.seconds, "metrics": dict(result.metrics)})
    else:
        show_table(("validation metric", "value"), [(name, f"{value:.4f}") for name, value in result.metrics.items()])
    say(f"model written to {result.model_path}")
    return 0
