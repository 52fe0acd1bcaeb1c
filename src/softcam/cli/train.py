"""`softcam train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show_json, show_table

if TYPE_CHECKING:
    from softcam.metrics import Interval
    from softcam.training import FoldsRun

SUMMARY = "Train a model from a recipe; the same command continues an interrupted run"
EXAMPLES = """\
  softcam train --config elpv-demo --out runs/elpv
  softcam train --config my-recipe.yaml --out runs/mine
  softcam train --config rsna --data rsna/manifest.csv --set penalty.l1=2e-5 --out runs/rsna-sparse
  softcam train --config kaggle-dr --set model.backbone=torchvision:vgg16 --out runs/dr-vgg
  softcam train --config my-recipe.yaml --folds 5 --out runs/folds
  softcam train --config kaggle-dr --weights my-resnet50.pth --out runs/dr-mine
  softcam train --config kaggle-dr --devices 4 --num-workers 8 --out runs/dr
  torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint node0:29500 \
      --no-python softcam train --config kaggle-dr --out runs/dr
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--config", type=str, required=True, help="recipe: a YAML file, or the name of a built-in one")
    parser.add_argument("--data", type=str, default=None, help="manifest, instead of the recipe's data.source")
    parser.add_argument(
        "--weights",
        type=str,
        default=None,
        help="what to begin from, instead of the recipe's: pretrained, none, a file of weights, a model or run folder",
    )
    parser.add_argument(
        "--set", type=str, nargs="+", default=(), help="values to replace in the recipe, each as key=value"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument(
        "--devices", type=int, default=None, help="processes on each machine, one per GPU or per share of the cores"
    )
    parser.add_argument("--nodes", type=int, default=None, help="machines, started by torchrun or srun")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="what it is computed on")
    parser.add_argument("--num-workers", type=int, default=None, help="processes that decode images, for each device")
    parser.add_argument(
        "--accumulate-grad-batches", type=int, default=1, help="parts that a step is taken in, to save memory"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "32-true", "16-mixed", "bf16-mixed"),
        default=None,
        help="arithmetic, instead of the recipe's",
    )
    parser.add_argument(
        "--folds", type=int, default=None, help="train so many models, each of which leaves out other images"
    )
    parser.add_argument("--black-box", action="store_true", help="train the recipe's black-box twin instead")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def run(options: Any) -> int:
    """Train; the first process prints the metrics."""
    from softcam.training import Hardware, change_recipe, is_first_process, read_recipe, train, train_folds

    changes = {"data.source": options.data, "model.weights": options.weights, "precision": options.precision}
    flags = [f"{key}={json.dumps(value)}" for key, value in changes.items() if value is not None]
    recipe = change_recipe(read_recipe(options.config), (*flags, *options.set))
    hardware = Hardware(
        options.devices,
        options.nodes,
        options.accelerator,
        num_workers=options.num_workers,
        accumulate_grad_batches=options.accumulate_grad_batches,
    )
    recipe = recipe.twin() if options.black_box else recipe
    if options.folds is not None:
        _show_folds(train_folds(recipe, options.out, folds=options.folds, hardware=hardware), as_json=options.json)
        return 0
    result = train(recipe, options.out, hardware=hardware)
    if not is_first_process():
        return 0
    if options.json:
        show_json({"model": str(result.model_path), "seconds": result.seconds, "metrics": dict(result.metrics)})
    else:
        show_table(("validation metric", "value"), [(name, f"{value:.4f}") for name, value in result.metrics.items()])
    say(f"model written to {result.model_path}")
    return 0


def _show_folds(result: FoldsRun, *, as_json: bool) -> None:
    if as_json:
        show_json(result.to_dict())
    else:
        rows = [
            (name, f"{result.mean(name):.4f}", f"{result.spread(name):.4f}", _show_interval(result.together.get(name)))
            for name in result.metrics
        ]
        show_table(("metric on what each fold left out", "mean", "spread", "all folds together (95 %)"), rows)
    say(f"models and predictions written to {result.path}")


def _show_interval(found: Interval | None) -> str:
    return "" if found is None else f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
