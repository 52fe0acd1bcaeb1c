"""What a training step costs: `python benchmarks/training_speed.py [--quick]` (about five minutes; quick: one).

Arms of a comparison are timed in turn within every repeat; ratios are medians over repeats of the ratio within a
repeat. Compared are steps with and without the penalty, channels_last and NCHW, fused, foreach and plain optimizers,
and epochs of one process with all cores and of two processes with half of them each.
Writes `benchmarks/results/training_speed.json`.
"""

from __future__ import annotations

import copy
import csv
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe_environment
from evidence_cost import summarize, time_in_turn
from options import choose_out, create_parser
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from softcam.backbones import create_black_box
from softcam.cores import count_cores
from softcam.files import write_atomic
from softcam.nn import SoftCAM, convert, run_until
from softcam.training import Hardware, Learner, Recipe, train
from softcam.training.batches import Share
from softcam.training.module import Task, create_optimizer
from softcam.training.trunk import find_trunk

RESULT = Path(__file__).parent / "results" / "training_speed.json"
SIZE = 224
SETTINGS = (("timm:resnet50", None, 8), ("timm:tf_efficientnet_lite0", "blocks.4", 32))
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
KERNELS: dict[str, dict[str, bool]] = {
    "plain": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
Step = Callable[[], object]


def main() -> None:
    options = create_parser(__doc__).parse_args()
    torch.set_num_threads(count_cores())
    repeats = 3 if options.quick else 15
    result = {
        "environment": describe_environment(seeds=[0]),
        "setting": {"size": SIZE, "dtype": "float32", "repeats": repeats},
        "penalty": [measure_penalty(*setting, repeats=repeats) for setting in SETTINGS],
        "format": [measure_format(*setting, repeats=repeats) for setting in SETTINGS],
        "optimizer": [measure_optimizer(name, repeats=2 * repeats) for name in OPTIMIZERS],
        "processes": measure_processes(images=16 if options.quick else 64, runs=1 if options.quick else 2),
    }
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: result[name] for name in ("penalty", "format", "optimizer", "processes")}, indent=2))


def create(name: str, batch: int) -> tuple[SoftCAM, Tensor, Tensor]:
    """Return a model, images and targets, the same in every call."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE)
    black_box = create_black_box(name, num_classes=2).eval()
    model = convert(black_box, images=images[:1]).to(memory_format=torch.channels_last)
    return model, images, torch.arange(batch) % 2


def create_step(model: SoftCAM, trunk: str | None, inputs: tuple[Tensor, Tensor, Tensor], *, l1: float) -> Step:
    """Return a function that takes an optimisation step of a run, without the trainer around it."""
    images, features, targets = inputs
    recipe = Recipe.from_dict({"name": "step", "penalty": {"l1": l1}, "stages": [{"epochs": 1, "trunk": trunk}]})
    found = None if trunk is None else find_trunk(model, trunk, images[:2])
    learner = Learner(model, recipe, task=Task(2), steps_per_epoch=1, trunk=found)
    learner.log = lambda *_, **__: None  # type: ignore[method-assign]
    learner.on_train_epoch_start()
    optimizer = create_optimizer(model, recipe)
    batch = (features, targets, torch.arange(len(targets)), Share(len(targets)))

    def step() -> None:
        optimizer.zero_grad()
        learner.training_step(batch, 0).backward()
        optimizer.step()

    return step


def measure_penalty(name: str, trunk: str | None, batch: int, *, repeats: int) -> dict[str, Any]:
    """Return what the penalty adds to a step."""
    model, images, targets = create(name, batch)
    with torch.no_grad():
        features = images if trunk is None else run_until(model.eval(), trunk, images).float()
    inputs = (images, features, targets)
    steps = {
        "without": create_step(copy.deepcopy(model), trunk, inputs, l1=0.0),
        "penalty": create_step(copy.deepcopy(model), trunk, inputs, l1=1e-4),
    }
    row = {"model": name, "trunk": trunk, "batch": batch}
    return {**row, **summarize(time_in_turn(steps, repeats), "without")}


def measure_format(name: str, trunk: str | None, batch: int, *, repeats: int) -> dict[str, Any]:
    """Return what a step of the whole network takes in either memory format."""
    del trunk
    steps = {}
    for label, memory_format in (("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)):
        model, images, targets = create(name, batch)
        steps[label] = plain_step(
            model.to(memory_format=memory_format).train(), images.contiguous(memory_format=memory_format), targets
        )
    return {"model": name, "batch": batch, **summarize(time_in_turn(steps, repeats), "nchw")}


def plain_step(model: nn.Module, images: Tensor, targets: Tensor) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

    return step


def measure_optimizer(name: str, *, repeats: int) -> dict[str, Any]:
    """Return what moving all weights of a ResNet-50 takes."""
    steps: dict[str, Step] = {}
    for kernel, flags in KERNELS.items():
        model, *_ = create("timm:resnet50", 1)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        momentum = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
        steps[kernel] = OPTIMIZERS[name](model.parameters(), lr=1e-4, **flags, **momentum).step
    return {"model": "timm:resnet50", "optimizer": name, **summarize(time_in_turn(steps, repeats), "plain")}


def measure_processes(*, images: int, runs: int) -> dict[str, Any]:
    """Return the time of an epoch with one process and with two, the first epoch of a run left out."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        source = draw_images(Path(folder), images)
        for number in range(runs):
            for devices in (1, 2) if number % 2 else (2, 1):
                run = train(
                    Recipe.from_dict(recipe_of(source)),
                    Path(folder) / f"{devices}-{number}",
                    progress=False,
                    hardware=Hardware(devices, accelerator="cpu"),
                )
                with (run.path / "metrics.csv").open(encoding="utf-8") as stream:
                    seconds[devices] += [float(row["seconds"]) for row in csv.DictReader(stream)][1:]
    one, two = (statistics.median(seconds[devices]) for devices in (1, 2))
    rates = {"one_images_per_second": round(images / one, 2), "two_images_per_second": round(images / two, 2)}
    return {"model": "timm:tf_efficientnet_lite0", "batch": 16, "images": images, **rates, "ratio": round(one / two, 3)}


def draw_images(folder: Path, count: int) -> Path:
    """Write noise as images of two classes; one of five is for validation."""
    generator = np.random.default_rng(0)
    lines = ["image,label,split"]
    for number in range(count + max(2, count // 4)):
        Image.fromarray(generator.integers(0, 255, (256, 256, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},{'train' if number < count else 'val'}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "manifest.csv"


def recipe_of(source: Path) -> dict[str, Any]:
    return {
        "name": "speed",
        "data": {"source": str(source), "image_size": SIZE, "batch_size": 16},
        "model": {"backbone": "timm:tf_efficientnet_lite0", "weights": "none"},
        "penalty": {"l1": 1e-4},
        "stages": [{"epochs": 3, "freeze_norms": True}],
    }


if __name__ == "__main__":
    main()
