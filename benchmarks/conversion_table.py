"""Convert networks of torchvision and timm and measure what is promised: `python benchmarks/conversion_table.py`.

Weights are random, with norms, biases, layer scales and zero-initialised weights given values that hide no mistake.
The error is the largest of the two ways to the logits (pooling first; mean of the maps) on two images of noise at the
network's own size, relative to the black box's largest logit. Writes `benchmarks/results/conversion.json`, and its rows
to the file that `softcam models` reads; prints a table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environment import describe_environment

from softcam.files import write_atomic
from softcam.survey import survey_model

RESULT = Path(__file__).parent / "results" / "conversion.json"
PACKAGED = Path(__file__).parents[1] / "src" / "softcam" / "survey.json"
SEED = 0

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg16", "vit_b_16",
)  # fmt: skip
TIMM = (
    "coatnet_nano_rw_224", "convnext_atto", "densenet121", "dla34", "efficientvim_m1", "ese_vovnet19b_dw",
    "fastvit_t8", "ghostnet_050", "gmlp_ti16_224", "hrnet_w18_small", "levit_128s", "mixer_s32_224", "mixnet_s",
    "mobilenetv2_035", "mobilenetv3_small_050", "mobileone_s0", "mobilevit_xxs", "nfnet_l0", "poolformer_s12",
    "regnety_002", "repvit_m0_9", "resmlp_12_224", "resnet50", "resnetv2_50", "rexnet_100", "selecsls42b",
    "skresnet18", "starnet_s1", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0", "tinynet_e",
    "vit_tiny_patch16_224", "xcit_nano_12_p16_224",
)  # fmt: skip
NAMES = (*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks to convert; default: the committed selection")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for name in options.names or NAMES:
        rows.append(survey_model(name, seed=SEED).to_dict())
        print(f"{name}: {rows[-1]['seconds']:.1f} s", file=sys.stderr)
    result = {"seed": SEED, "environment": describe_environment(), "models": rows}
    write_atomic(options.out, json.dumps(result, indent=2) + "\n")
    if options.out == RESULT and not options.names:
        write_atomic(PACKAGED, json.dumps({"models": rows}, indent=1) + "\n")
    print(render_table(rows))


def render_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| model | exact | error | channels | cells | stride | seconds |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        if row["refusal"] is None:
            cells = f"{row['grid'][0]}x{row['grid'][1]}"
            details = (
                f"yes | {row['error']:.1e} | {row['channels']} ({row['layout']}) | {cells} | {row['map_stride'][0]}"
            )
        else:
            details = f"no: {_reason(row['refusal'])} | | | |"
        lines.append(f"| {row['model']} | {details} | {row['seconds']:.1f} |")
    exact = [row for row in rows if row["exact"]]
    worst = f", largest error {max(row['error'] for row in exact):.1e}" if exact else ""
    return "\n".join([*lines, "", f"{len(exact)} of {len(rows)} convert exactly{worst}."])


def _reason(refusal: str) -> str:
    _, _, found = refusal.partition(", but ")
    return found.partition(". ")[0].rstrip(".")


if __name__ == "__main__":
    main()
