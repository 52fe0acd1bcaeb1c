"""What an explanation costs beside the prediction: `python benchmarks/evidence_cost.py`.

Black-box forward, `SoftCAM.evidence` and Grad-CAM (pytorch-grad-cam, last stage of the black box) are timed in turn
within every repeat, so that a change of the machine's pace meets all three. Ratios are medians over repeats of the
ratio within a repeat. For class evidence layers at earlier places, the black box up to that place is timed as well.
Methods that take hundreds of passes (integrated gradients of 50 steps, Score-CAM) are timed on one network and image.
Writes `benchmarks/results/evidence_cost.json`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from captum.attr import IntegratedGradients
from environment import describe_environment
from options import choose_out, create_parser
from pytorch_grad_cam import GradCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timing import Calls, summarize, time_in_turn
from torch import nn

from softcam.backbones import create_black_box
from softcam.files import write_atomic
from softcam.nn import convert, run_until

RESULT = Path(__file__).parent / "results" / "evidence_cost.json"
THREADS = 2
SIZE = 224
LAST_STAGES = {
    "timm:resnet50": "layer4",
    "timm:densenet121": "features.norm5",
    "timm:convnext_tiny": "stages.3",
    "timm:tf_efficientnet_lite0": "bn2",
}
QUICK_NAME = SLOW_NAME = "timm:tf_efficientnet_lite0"
STEPS, CHUNK = 50, 10
PLACES = (16, 8)


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=None, help="default: 15, or 3 with --quick")
    parser.add_argument("--batches", type=int, nargs="+", default=None, help="default: 1 8, or 1 with --quick")
    parser.add_argument("--classes", type=int, nargs="+", default=None, help="default: 2 1000, or 2 with --quick")
    options = parser.parse_args()
    quick = options.quick
    options.repeats = options.repeats or (3 if quick else 15)
    options.batches = options.batches or ([1] if quick else [1, 8])
    options.classes = options.classes or ([2] if quick else [2, 1000])
    names = [QUICK_NAME] if quick else list(LAST_STAGES)
    torch.set_num_threads(THREADS)
    rows = [
        measure(name, num_classes, batch, repeats=options.repeats)
        for name in names
        for num_classes in options.classes
        for batch in options.batches
    ]
    places = [
        measure_place(name, stride, batch, repeats=options.repeats)
        for name in names
        for stride in PLACES
        for batch in options.batches
    ]
    slow = [] if quick else [measure_slow(SLOW_NAME, repeats=3)]
    setting = {"size": SIZE, "memory_format": "channels_last", "dtype": "float32", "repeats": options.repeats}
    result = {
        "environment": describe_environment(seeds=[0]),
        "setting": setting,
        "rows": rows,
        "places": places,
        "slow": slow,
    }
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(render_table(rows))
    for row in [*places, *slow]:
        print(row)


def create(name: str, num_classes: int, batch: int) -> tuple[nn.Module, torch.Tensor]:
    """Return a black box and images, the same in every call."""
    torch.manual_seed(0)
    black_box = create_black_box(name, num_classes=num_classes).eval().to(memory_format=torch.channels_last)
    return black_box, torch.randn(batch, 3, SIZE, SIZE).to(memory_format=torch.channels_last)


def measure(name: str, num_classes: int, batch: int, *, repeats: int) -> dict[str, Any]:
    black_box, images = create(name, num_classes, batch)
    seconds = time_in_turn(make_calls(black_box, LAST_STAGES[name], images), repeats)
    return {"model": name, "classes": num_classes, "batch": batch, **summarize(seconds, "forward")}


def measure_place(name: str, stride: int, batch: int, *, repeats: int) -> dict[str, Any]:
    black_box, images = create(name, 2, batch)
    model = convert(black_box, images=images[:1], at=stride, num_classes=2).to(memory_format=torch.channels_last)
    (place,) = model.conversion.places

    def run(call: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(call)

    calls = {
        "trunk": run(lambda: run_until(black_box, place, images)),
        "evidence": run(lambda: model.evidence(images)),
        "forward": run(lambda: black_box(images)),
    }
    row = {"model": name, "stride": stride, "place": place, "batch": batch}
    return {**row, **summarize(time_in_turn(calls, repeats), "trunk")}


def measure_slow(name: str, *, repeats: int) -> dict[str, Any]:
    black_box, images = create(name, 1000, 1)
    masked = copy.deepcopy(black_box)
    score_cam = ScoreCAM(model=masked, target_layers=[masked.get_submodule(LAST_STAGES[name])])
    score_cam.batch_size = CHUNK
    gradients = IntegratedGradients(black_box)
    calls = {
        "forward": torch.inference_mode()(lambda: black_box(images)),
        "integrated_gradients": lambda: gradients.attribute(images, target=0, n_steps=STEPS, internal_batch_size=CHUNK),
        "score_cam": lambda: score_cam(images, [ClassifierOutputTarget(0)]),
    }
    return {"model": name, "batch": 1, "steps": STEPS, **summarize(time_in_turn(calls, repeats), "forward")}


def make_calls(black_box: nn.Module, stage: str, images: torch.Tensor) -> Calls:
    """Return the three things to time, by name."""
    model = convert(black_box, images=images[:1])
    # A copy, since Grad-CAM leaves hooks in the network that would slow down the plain forward.
    hooked = copy.deepcopy(black_box)
    cam = GradCAM(model=hooked, target_layers=[hooked.get_submodule(stage)])
    targets = [ClassifierOutputTarget(0)] * len(images)

    def forward() -> object:
        with torch.inference_mode():
            return black_box(images)

    def evidence() -> object:
        with torch.inference_mode():
            return model.evidence(images)

    return {"forward": forward, "evidence": evidence, "grad_cam": lambda: cam(images, targets)}


def render_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| model | classes | batch | forward, ms | logits and maps | Grad-CAM |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['classes']} | {row['batch']} | {row['forward_ms']:.1f} | {row['evidence_ratio']:.2f} "
        f"| {row['grad_cam_ratio']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
