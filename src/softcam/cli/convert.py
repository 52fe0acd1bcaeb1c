"""`softcam convert`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, show, show_json
from softcam.errors import UnsupportedModelError

SUMMARY = "Turn a black box into a self-explainable model with the same logits"
EXAMPLES = """\
  softcam convert timm:resnet50 --out model
  softcam convert torchvision:densenet121 --out model --json
  softcam convert timm:tf_efficientnet_lite0 --num-classes 5 --out model    (a new evidence layer, to be trained)
  softcam convert timm:resnet50 --at 16 --num-classes 5 --out model         (evidence earlier, more local)
  softcam convert timm:resnet50 --at layer3 layer4 --out model              (evidence at two scales)
  softcam convert timm:resnet50 --map-stride 16 --out model                 (four times the cells, same weights)
  softcam convert timm:vit_small_patch16_224 --no-exact --out model         (closest copy, to be fine-tuned)
"""

HEADS = ("auto", "linear", "pointwise", "fully_convolutional")

PASSED_ON = (
    "num_classes", "head", "map_stride", "features", "classifier", "at", "layers", "multi_label",
)  # fmt: skip
"""Flags that are arguments of `softcam.nn.convert` by the same name."""

_NAMES = "|".join((*PASSED_ON, "exact", "weights"))

_ARGUMENT = re.compile(rf"`(?P<name>{_NAMES})(?P<value>=\w*)?`|\b(?P<bare>{_NAMES})='(?P<text>\w+)'")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("name", type=str, help="timm:<model> or torchvision:<model>")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    parser.add_argument(
        "--weights", choices=["pretrained", "none"], default="pretrained", help="where weights come from"
    )
    parser.add_argument("--num-classes", type=int, default=None, help="new evidence layer for so many classes")
    parser.add_argument(
        "--no-exact",
        action="store_true",
        help="take the closest copy of a head that cannot be exact; it has to be fine-tuned",
    )
    parser.add_argument("--head", choices=HEADS, default="auto", help="form of the evidence layer")
    parser.add_argument("--map-stride", type=int, default=None, help="input pixels per cell, for finer maps: 16 or 8")
    parser.add_argument("--features", type=str, default=None, help="module whose output is the feature map")
    parser.add_argument("--classifier", type=str, default=None, help="module whose output is the logits")
    parser.add_argument(
        "--at",
        type=int | str,
        nargs="+",
        default=None,
        help="places of new evidence layers: strides in pixels, or modules",
    )
    parser.add_argument("--layers", type=int, default=None, help="1x1 layers of a new evidence layer")
    parser.add_argument("--multi-label", action="store_true", help="classes are independent of each other")
    parser.add_argument("--json", action="store_true", help="print the conversion report as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Convert, save, print the report."""
    from softcam.backbones import create_black_box, default_preprocessing
    from softcam.bundle import save
    from softcam.nn import convert

    _check_combination(options)
    try:
        black_box = create_black_box(options.name, weights=options.weights).eval()
        model = convert(black_box, exact=not options.no_exact, **{name: options[name] for name in PASSED_ON})
    except UnsupportedModelError as error:
        raise UnsupportedModelError(_name_flags(str(error))) from error
    except ValueError as error:
        raise ValueError(_name_flags(str(error))) from error
    save(model, options.out, preprocessing=default_preprocessing(options.name))
    if options.json:
        show_json(model.conversion.to_dict())
    else:
        show(str(model.conversion))
    say(f"model written to {options.out}")
    return 0


def _check_combination(options: Any) -> None:
    """Refuse flags of which one would be ignored."""
    if options.at is not None and options.features is not None:
        raise ValueError("Expected `--at` or `--features`, but got both. `--at` alone says where the new layer sits.")
    if options.at is not None and options.head != "auto":
        raise ValueError(
            f"Expected `--at` without `--head`, but got `--head {options.head}`. The layer at a chosen place is new: "
            "give the number of its 1x1 layers with `--layers`."
        )
    if options.layers is not None and options.head in ("pointwise", "fully_convolutional"):
        raise ValueError(
            f"Expected `--layers` without `--head {options.head}`, which copies the layers of the black box's own "
            "head. Leave one of the two out."
        )


def _name_flags(message: str) -> str:
    """Return a message of the library with its arguments written as the flags of this command."""
    return _ARGUMENT.sub(_flag, message)


def _flag(match: re.Match[str]) -> str:
    name = match["name"] or match["bare"]
    if name == "exact":
        return "`--no-exact`"
    value = match["text"] or (match["value"] or "").removeprefix("=")
    return f"`--{name.replace('_', '-')}{' ' + value if value else ''}`"
