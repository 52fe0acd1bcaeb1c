"""What evidence and penalty cost on a GPU: `python benchmarks/gpu_speed.py [--quick]` (about two minutes on an H100).

Black-box forward, `SoftCAM.evidence`, the predictor's torch backend (whose class evidence layer computes in float64)
and Grad-CAM are timed in turn within every repeat, on images that are on the GPU already; an optimisation step is timed
with and without the penalty. Ratios are medians over repeats of the ratio within a repeat. `images_per_second` is what
the backend reaches from host memory to host memory, images copied there and maps copied back.
Writes `benchmarks/results/gpu_speed.json`.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from environment import describe_environment
from evidence_cost import LAST_STAGES
from options import choose_out, create_parser
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timing import summarize, time_in_turn
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.backbones import create_black_box
from softcam.files import write_atomic
from softcam.nn import ElasticNet, SoftCAM, convert
from softcam.predict.backends import TorchBackend

RESULT = Path(__file__).parent / "results" / "gpu_speed.json"
SIZE, CLASSES = 224, 1000
BATCHES = (1, 8, 64)
TRAINED, TRAIN_BATCH = "timm:resnet50", 64
CUDA = torch.device("cuda")
DTYPES: Mapping[str, torch.dtype | None] = {"tf32": None, "bfloat16": torch.bfloat16}
Network = TypeVar("Network", bound=nn.Module)
Call = Callable[[], object]


def main() -> int:
    options = create_parser(__doc__).parse_args()
    if not torch.cuda.is_available():
        print("gpu_speed: needs a GPU that torch can use", file=sys.stderr)
        return 1
    repeats = 3 if options.quick else 31
    names = list(LAST_STAGES)[:1] if options.quick else list(LAST_STAGES)
    rows = [measure(name, kind, batch, repeats) for name in names for kind in DTYPES for batch in BATCHES]
    training = [measure_training(kind, repeats) for kind in DTYPES]
    result = {
        "environment": describe_environment(seeds=[0]),
        "setting": {"size": SIZE, "classes": CLASSES, "memory_format": "channels_last", "repeats": repeats},
        "rows": rows,
        "training": training,
    }
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    for row in [*rows, *training]:
        print({name: row[name] for name in row if not name.endswith(("quartiles", "range"))})
    return 0


def synchronized(call: Call, dtype: torch.dtype | None = None) -> Call:
    """Return the call, ended when the GPU has ended it."""

    def run() -> None:
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
            call()
        torch.cuda.synchronize()

    return run


@cache
def create(name: str, classes: int = CLASSES) -> tuple[nn.Module, SoftCAM]:
    """Return a black box on the GPU and its converted form."""
    torch.manual_seed(0)
    black_box = create_black_box(name, num_classes=classes).eval()
    model = convert(black_box, images=torch.randn(1, 3, SIZE, SIZE))
    return move(black_box), move(model)


def move(network: Network) -> Network:
    """Return a network on the GPU, in channels-last layout."""
    return network.to(CUDA).to(memory_format=torch.channels_last)


def measure(name: str, kind: str, batch: int, repeats: int) -> dict[str, Any]:
    """Return what evidence costs beside a prediction."""
    black_box, model = create(name)
    dtype = DTYPES[kind]
    images = torch.randn(batch, 3, SIZE, SIZE)
    there = images.to(CUDA).contiguous(memory_format=torch.channels_last)
    backend = TorchBackend(model, CUDA, dtype)
    # A copy, since Grad-CAM leaves hooks in the network that would slow down the plain forward.
    hooked = copy.deepcopy(black_box)
    cam = GradCAM(model=hooked, target_layers=[hooked.get_submodule(LAST_STAGES[name])])
    targets = [ClassifierOutputTarget(0)] * batch
    inference = torch.inference_mode()
    calls = {
        "forward": synchronized(inference(lambda: black_box(there)), dtype),
        "evidence": synchronized(inference(lambda: model.evidence(there)), dtype),
        "backend": synchronized(lambda: backend(there)),
    }
    if dtype is None:  # the package cannot hand out maps in half precision
        calls["grad_cam"] = synchronized(lambda: cam(there, targets))

    def there_and_back() -> Tensor:
        return backend(images).maps.cpu()

    row = {"model": name, "dtype": kind, "batch": batch, **summarize(time_in_turn(calls, repeats), "forward")}
    seconds = time_in_turn({"all": synchronized(there_and_back)}, repeats)["all"]
    return {**row, "images_per_second": round(batch / statistics.median(seconds), 1)}


def measure_training(kind: str, repeats: int) -> dict[str, Any]:
    """Return what the penalty adds to an optimisation step of the whole network."""
    images = torch.randn(TRAIN_BATCH, 3, SIZE, SIZE, device=CUDA).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(TRAIN_BATCH, device=CUDA) % 2

    def create_step(penalty: ElasticNet | None) -> Call:
        model = copy.deepcopy(create(TRAINED, classes=2)[1]).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            if penalty is None:
                loss = F.cross_entropy(model(images).float(), targets)
            else:
                found = model.evidence(images)
                loss = F.cross_entropy(found.logits.float(), targets) + penalty(found.maps)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return synchronized(step, DTYPES[kind])

    seconds = time_in_turn({"without": create_step(None), "penalty": create_step(ElasticNet(1e-4))}, repeats)
    row = {"model": TRAINED, "dtype": kind, "batch": TRAIN_BATCH, **summarize(seconds, "without")}
    return {**row, "images_per_second": round(TRAIN_BATCH / statistics.median(seconds["penalty"]), 1)}


if __name__ == "__main__":
    sys.exit(main())
