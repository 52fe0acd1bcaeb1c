"""What an explanation costs beside the prediction: `python benchmarks/evidence_cost.py`.

Black-box forward, `SoftCAM.evidence` and Grad-CAM (pytorch-grad-cam, last stage of the black box) are timed in turn
within every repeat, so that a change of the machine's pace meets all three. Ratios are medians over repeats of the
ratio within a repeat. For class evidence layers at earlier places, the black box up to that place is timed as well.
Writes `benchmarks/results/evidence_cost.json`.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from environment import describe_environment
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
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
    "timm:tf_efficientnet_lite0": "bn2",
}
PLACES = (16, 8)
Calls = Mapping[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 1000])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows = [
        measure(name, num_classes, batch, repeats=options.repeats)
        for name in LAST_STAGES
        for num_classes in options.classes
        for batch in options.batches
    ]
    places = [
        measure_place(name, stride, batch, repeats=options.repeats)
        for name in LAST_STAGES
        for stride in PLACES
        for batch in options.batches
    ]
    setting = {"size": SIZE, "memory_format": "channels_last", "dtype": "float32", "repeats": options.repeats}
    result = {"environment": describe_environment(), "setting": setting, "rows": rows, "places": places}
    write_atomic(options.out, json.dumps(result, indent=2) + "\n")
    print(render_table(rows))
    for row in places:
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


def summarize(seconds: Mapping[str, list[float]], reference: str) -> dict[str, Any]:
    """Return medians in ms and, but for the reference, ratios to it within each repeat."""
    row: dict[str, Any] = {}
    for call, times in seconds.items():
        row[f"{call}_ms"] = round(1000 * statistics.median(times), 3)
        if call != reference:
            ratios = [mine / theirs for mine, theirs in zip(times, seconds[reference], strict=True)]
            row[f"{call}_ratio"] = round(statistics.median(ratios), 4)
            row[f"{call}_ratio_range"] = [round(min(ratios), 4), round(max(ratios), 4)]
    return row


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


def time_in_turn(calls: Calls, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each call in each repeat, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        # Every other round backwards, so that none always follows the same other.
        for name, call in list(calls.items())[:: 1 if repeat % 2 else -1]:
            started = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


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
