"""The models that `evidence_depth.py` compares, as recipes: two data sets, several places, and ways to train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softcam.sweep.places import Place, place_recipe
from softcam.training import Recipe

BACKBONE = "timm:tf_efficientnet_lite0"
TRUNK = "blocks.4"
"""The deepest features of stride 16; frozen in all models."""

POOLING: Place = ()


@dataclass(frozen=True)
class Arm:
    """One model of the study.

    Args:
        name: What it is called in tables.
        at: Places of the class evidence layers; none for the place of the pooling.
        l1: Strength of the penalty on the maps.
        scales: Factors of it per place.
        layers: 1x1 layers of a class evidence layer at an earlier place.
        teacher: Whether it learns from the black box as well.
    """

    name: str
    at: Place
    l1: float = 0.0
    scales: tuple[float, ...] = ()
    layers: int | None = None
    teacher: bool = False

    @property
    def trained(self) -> bool:
        """Whether it is more than the black box, converted with its logits."""
        return bool(self.at) or self.l1 > 0


@dataclass(frozen=True)
class Plan:
    """How the models of one data set are trained.

    Args:
        data: The recipe's `data`.
        loss: The recipe's `loss`.
        margin: Loss of AUROC against the black box that is accepted, stated beforehand.
        views: Augmented versions of each training image.
        deep: Epochs and learning rate where layers after the trunk are trained.
        shallow: The same where class evidence layers alone are trained, which takes a second per epoch.
        seeds: Of the runs, and of the images where they are drawn.
        arms: The models beside the black box.
    """

    data: dict[str, Any]
    loss: dict[str, Any]
    margin: float
    views: int
    deep: tuple[int, float]
    shallow: tuple[int, float]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]

    def black_box(self, source: Path, seed: int) -> Recipe:
        """Return the recipe of the black box that is converted and explained."""
        return self._recipe(source, seed, Arm("black box", POOLING)).twin()

    def recipe(self, source: Path, seed: int, arm: Arm, example: Any, teacher: Path) -> Recipe:
        """Return the recipe of a model.

        Args:
            source: Manifest of the images.
            seed: Of the run.
            arm: The model.
            example: One image (1, C, H, W), on which places are found.
            teacher: Folder of the black box's run.
        """
        recipe = place_recipe(self._recipe(source, seed, arm), arm.at, example)
        return replace(recipe, loss=replace(recipe.loss, teacher=str(teacher))) if arm.teacher else recipe

    def _recipe(self, source: Path, seed: int, arm: Arm) -> Recipe:
        # Layers after the trunk are trained wherever one of the places lies behind it.
        deep = not arm.at or max(place for place in arm.at if isinstance(place, int)) > 16
        epochs, lr = self.deep if deep else self.shallow
        return Recipe.from_dict(
            {
                "name": arm.name,
                "seed": seed,
                "data": {**self.data, "source": str(source)},
                "model": {"backbone": BACKBONE, "layers": arm.layers, "at": list(arm.at)},
                "penalty": {"l1": arm.l1, "scales": list(arm.scales)},
                "loss": self.loss,
                "stages": [{"epochs": epochs, "lr": lr, "trunk": TRUNK, "views": self.views}],
            }
        )


PLANS = {
    "lesions": Plan(
        data={
            "classes": ["healthy", "lesions"],
            "preprocessing": {"crop_fraction": 1.0},
            "augmentation": {"hflip": True, "vflip": True},
        },
        loss={},
        margin=0.01,
        views=2,
        deep=(6, 1e-3),
        shallow=(40, 5e-3),
        seeds=(0, 1, 2),
        arms=(
            Arm("last stage", POOLING),
            Arm("last stage, l1 1e-3", POOLING, l1=1e-3),
            Arm("stride 16", (16,)),
            Arm("stride 16, l1 1e-4", (16,), l1=1e-4),
            Arm("stride 8", (8,)),
            Arm("stride 8, l1 3e-5", (8,), l1=3e-5),
            Arm("stride 4", (4,)),
            Arm("strides 16 and 32, coarse costs more", (16, 32), l1=1e-5, scales=(1.0, 100.0)),
        ),
    ),
    "elpv": Plan(
        data={
            "classes": ["intact", "defect"],
            "preprocessing": {"crop_fraction": 1.0},
            "augmentation": {"hflip": True, "vflip": True},
        },
        loss={"class_weights": "balanced"},
        margin=0.02,
        views=3,
        deep=(5, 5e-4),
        shallow=(40, 5e-3),
        seeds=(0, 1),
        arms=(
            Arm("last stage", POOLING),
            Arm("stride 16", (16,)),
            Arm("stride 16, three layers", (16,), layers=3),
            Arm("stride 8", (8,)),
            Arm("stride 8, three layers", (8,), layers=3),
            Arm("stride 16, taught by the black box", (16,), teacher=True),
        ),
    ),
}
