"""The models of the study: a black box, and SoftCAM models without and with a penalty at two places, trained alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from depth_arms import PLANS, POOLING, Arm
from evidence_depth import Seed

from softcam.bundle import load_black_box, read_config, save
from softcam.data import Manifest
from softcam.nn import convert
from softcam.sweep.places import Place
from softcam.training import TrainingRun

SEEDS = (0, 1, 2)
BEARABLE = 0.005
"""The penalty is the strongest that costs at most so much of the validation AUROC of seed 0."""


@dataclass(frozen=True)
class Layer:
    """A place of the class evidence layer and the penalties that are tried there.

    Args:
        name: As in tables.
        at: As in a recipe; none for the place of the pooling.
        penalties: Strengths of l1, increasing.
        module: Where post-hoc methods look at the same features of the black box; None for the last spatial layer.
    """

    name: str
    at: Place
    penalties: tuple[float, ...]
    module: str | None

    def arm(self, l1: float = 0.0) -> Arm:
        """Return the model of a penalty."""
        penalty = f", l1 {l1:.0e}".replace("e-0", "e-") if l1 else ""
        return Arm(self.name + penalty, self.at, l1=l1)


LAYERS = {
    "lesions": (
        Layer("last stage", POOLING, (1e-4, 1e-3), None),
        Layer("stride 8", (8,), (1e-5, 3e-5, 1e-4), "blocks.2"),
    ),
    "elpv": (
        Layer("last stage", POOLING, (1e-4, 1e-3, 1e-2), None),
        Layer("stride 16", (16,), (1e-5, 1e-4, 1e-3), "blocks.4"),
    ),
}
"""The second place of each is what `evidence_depth.py` found on validation images: the most local that keeps up."""


class Models:
    """The trained models of one data set and seed, in a folder that `evidence_depth.py` can share."""

    def __init__(self, data: str, work: Path, seed: int, *, manifest: Manifest | None = None) -> None:
        self.data, self.work, self.number = data, work, seed
        self.layers = LAYERS[data]
        self.seed = Seed(PLANS[data], data, work / data, seed, manifest=manifest)

    @property
    def black_box(self) -> Path:
        """Bundle of the black box."""
        return self.seed.black_box / "model"

    @cached_property
    def softcams(self) -> dict[str, Path]:
        """Bundles by name: `last_stage`, `last_stage_sparse` and the same for the other place."""
        found = {}
        for layer in self.layers:
            name = layer.name.replace(" ", "_")
            found[name] = self.train(layer.arm())
            found[f"{name}_sparse"] = self.train(layer.arm(self.choose(layer)["l1"]))
        return found

    def train(self, arm: Arm) -> Path:
        """Return the bundle of a model; that of no penalty at the last stage is the black box, with its own logits."""
        if not arm.trained:
            return self.convert()
        return self.run(arm).model_path

    def run(self, arm: Arm) -> TrainingRun:
        """Train a model, or take the run that is there."""
        seed = self.seed
        return seed.train(seed.plan.recipe(seed.source, seed.seed, arm, seed.example, seed.black_box))

    def convert(self, map_stride: int | None = None) -> Path:
        """Return the bundle of the converted black box, which nothing is trained of.

        Args:
            map_stride: Input pixels from one cell to the next; None for the black box's own.
        """
        path = self.seed.folder / ("converted" if map_stride is None else f"converted, stride {map_stride}")
        if not (path / "config.json").is_file():
            config = read_config(self.black_box)
            black_box = load_black_box(self.black_box)
            model = convert(black_box, images=self.seed.example, map_stride=map_stride).eval()
            record = {"preprocessing": dict(config.preprocessing or {}), "thresholds": dict(config.thresholds)}
            save(model, path, classes=config.classes, **record)
        return path

    def choose(self, layer: Layer) -> dict[str, Any]:
        """Return `l1`, the strongest bearable penalty of a place, and `validation`, the AUROC of each on seed 0.

        Where none is bearable, the weakest that was tried is taken.
        """
        first = self if self.number == SEEDS[0] else Models(self.data, self.work, SEEDS[0])
        reference = first.seed.train(first.seed.plan.black_box(first.seed.source, SEEDS[0]))
        runs = {0.0: first.run(layer.arm()) if layer.at else reference}
        runs |= {l1: first.run(layer.arm(l1)) for l1 in layer.penalties}
        found = {l1: run.metrics["val_auroc"] for l1, run in runs.items()}
        bearable = [l1 for l1 in layer.penalties if found[l1] >= found[0.0] - BEARABLE]
        chosen = max(bearable, default=layer.penalties[0])
        return {"l1": chosen, "bearable": bool(bearable), "validation": {f"{l1:g}": v for l1, v in found.items()}}
