"""Time and memory of a conversion: `python benchmarks/conversion_cost.py`.

Each network is built in a process of its own. The time is the median over conversions, also relative to what no
conversion can do without, copying the network and running it on the two probe images. The memory is the growth of the
peak of a process that has run the network, during the first conversion, relative to the size of the network's tensors;
1 of it is the copy that the converted model keeps. Writes
`benchmarks/results/conversion_cost.json`.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import describe_environment, peak_memory

from softcam.backbones import create_black_box
from softcam.files import write_atomic
from softcam.nn import convert, input_shape

RESULT = Path(__file__).parent / "results" / "conversion_cost.json"
NAMES = (
    "torchvision:resnet50", "torchvision:densenet121", "torchvision:vgg16", "timm:tf_efficientnet_lite0",
    "timm:convnext_tiny", "timm:swin_tiny_patch4_window7_224", "timm:vit_base_patch16_224",
)  # fmt: skip
REPEATS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", default=None, help="measure one network here and print its row")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return 0
    rows = []
    for name in NAMES:
        done = subprocess.run([sys.executable, __file__, "--one", name], check=True, stdout=subprocess.PIPE)
        rows.append(json.loads(done.stdout))
        print(rows[-1], file=sys.stderr)
    write_atomic(RESULT, json.dumps({"environment": describe_environment(), "rows": rows}, indent=2) + "\n")
    return 0


def measure(name: str) -> dict[str, Any]:
    network = create_black_box(name).eval()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()) / 2**20
    images = torch.randn(2, *input_shape(network), generator=torch.Generator().manual_seed(0))
    run(network, images)  # what the library sets up at its first call
    before = peak_memory()
    report = convert(network, exact=False).conversion
    growth = peak_memory() - before
    seconds = median(lambda: convert(network, exact=False))
    floor = median(lambda: run(copy.deepcopy(network), images))
    return {
        "model": name,
        "head": report.head,
        "mebibytes": round(size, 1),
        "peak_growth_ratio": round(growth / size, 2),
        "seconds": round(seconds, 3),
        "copy_and_run_ratio": round(seconds / floor, 2),
    }


def run(network: torch.nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        network(images)


def median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
