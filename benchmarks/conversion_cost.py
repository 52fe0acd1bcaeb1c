"""Time and memory of a conversion: `python benchmarks/conversion_cost.py`.

Each network is built in a process of its own. The time is the median over conversions, also relative to what no
conversion can do without, copying the network and running it on the two probe images. The memory is the growth of the
peak of a process that has run the network, during the first conversion, relative to the size of the network's tensors;
1 of it is the copy that the converted model keeps. Writes
`benchmarks/results/conversion_cost.json`.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from environment import describe_environment, peak_memory
from options import choose_out, create_parser
from timing import Calls, find_quartiles, time_in_turn

from softcam.backbones import create_black_box
from softcam.files import write_atomic
from softcam.nn import convert, input_shape

RESULT = Path(__file__).parent / "results" / "conversion_cost.json"
NAMES = (
    "torchvision:resnet50", "torchvision:densenet121", "torchvision:vgg16", "timm:tf_efficientnet_lite0",
    "timm:convnext_tiny", "timm:swin_tiny_patch4_window7_224", "timm:vit_base_patch16_224",
)  # fmt: skip
QUICK_NAME = "timm:tf_efficientnet_lite0"
REPEATS = 5


def main() -> int:
    parser = create_parser(__doc__)
    parser.add_argument("--one", default=None, help="measure one network here and print its row")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, 2 if options.quick else REPEATS)))
        return 0
    rows = []
    small = ["--quick"] if options.quick else []
    for name in [QUICK_NAME] if options.quick else NAMES:
        done = subprocess.run([sys.executable, __file__, "--one", name, *small], check=True, stdout=subprocess.PIPE)
        rows.append(json.loads(done.stdout))
        print(rows[-1], file=sys.stderr)
    result = {"environment": describe_environment(seeds=[0]), "setting": {"repeats": REPEATS}, "rows": rows}
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    return 0


def measure(name: str, repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    network = create_black_box(name).eval()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()) / 2**20
    images = torch.randn(2, *input_shape(network), generator=torch.Generator().manual_seed(0))
    run(network, images)  # what the library sets up at its first call
    before = peak_memory()
    report = convert(network, exact=False).conversion
    growth = peak_memory() - before
    calls: Calls = {
        "convert": lambda: convert(network, exact=False),
        "copy_and_run": lambda: run(copy.deepcopy(network), images),
    }
    found = time_in_turn(calls, repeats)
    ratios = [mine / least for mine, least in zip(found["convert"], found["copy_and_run"], strict=True)]
    return {
        "model": name,
        "head": report.head,
        "mebibytes": round(size, 1),
        "peak_growth_ratio": round(growth / size, 2),
        "seconds": round(statistics.median(found["convert"]), 3),
        "seconds_quartiles": find_quartiles(found["convert"], digits=3),
        "copy_and_run_ratio": round(statistics.median(ratios), 2),
        "copy_and_run_ratio_quartiles": find_quartiles(ratios, digits=2),
    }


def run(network: torch.nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        network(images)


if __name__ == "__main__":
    sys.exit(main())
