"""`softcam convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show, show_json

SUMMARY = "Turn a black box into a self-explainable model with the same logits"
EXAMPLES = """\
  softcam convert timm:resnet50 --out model
  softcam convert torchvision:densenet121 --out model --json
  softcam convert timm:tf_efficientnet_lite0 --num-classes 5 --out model    (a new evidence layer, to be trained)
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("name", type=str, help="timm:<model> or torchvision:<model>")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    parser.add_argument(
        "--weights", choices=["pretrained", "none"], default="pretrained", help="where weights come from"
    )
    parser.add_argument("--num-classes", type=int, default=None, help="new evidence layer for so many classes")
    parser.add_argument("--json", action="store_true", help="print the conversion report as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Convert, save, print the report."""
    from softcam.backbones import create_black_box, default_preprocessing
    from softcam.bundle import save
    from softcam.nn import convert

    model = convert(create_black_box(options.name, weights=options.weights).eval(), num_classes=options.num_classes)
    save(model, options.out, preprocessing=default_preprocessing(options.name))
    if options.json:
        show_json(model.conversion.to_dict())
    else:
        show(str(model.conversion))
    say(f"model written to {options.out}")
    return 0
