"""From a recipe to what a run works on: the table of images, the preprocessing, the model to start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from softcam.backbones import create_black_box, default_preprocessing
from softcam.bundle import fingerprint
from softcam.data import ImageDataset, Manifest, read_manifest
from softcam.data.sources import SOURCES, prepare_source
from softcam.errors import RecipeError
from softcam.imaging import Preprocessing
from softcam.nn import convert
from softcam.training.cache import CachePlan, Features, Report, cache_features, cache_key
from softcam.training.recipe import Recipe


def load_manifest(recipe: Recipe, out: Path) -> Manifest:
    """Return the table of images that a recipe names, with a training and a validation split.

    Args:
        recipe: Its `data.source` is read.
        out: The run's folder; a built-in source is laid out in its subfolder `data`.

    Raises:
        ManifestError: If anything in the table is wrong.
        MissingExtraError: If the package of a built-in source is not installed.
    """
    if recipe.data.source in SOURCES:
        return prepare_source(recipe.data.source, out / "data")
    return read_manifest(recipe.data.source, classes=recipe.data.classes)


def choose_preprocessing(recipe: Recipe) -> Preprocessing:
    """Return the backbone's own preprocessing with the values that a recipe replaces.

    Raises:
        RecipeError: If a replacing key is unknown or its value is out of range.
    """
    values = default_preprocessing(recipe.model.backbone) | dict(recipe.data.preprocessing)
    if recipe.data.image_size is not None:
        values["size"] = recipe.data.image_size
    try:
        return Preprocessing.from_dict(Preprocessing().to_dict() | values)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"Expected `data.preprocessing` to be usable, but {error}") from error


HEAD_STD = 0.01
"""Standard deviation of a new classifier's weights."""


@dataclass(frozen=True)
class Start:
    """The model that a run starts from.

    Args:
        model: A SoftCAM model, or the black box it would have been converted from: both hold the same weights.
        fingerprint: Of the black box.
    """

    model: nn.Module
    fingerprint: str


def create_start(recipe: Recipe, manifest: Manifest, images: Tensor) -> Start:
    """Return the model that a recipe starts from; the seed alone decides its random weights.

    Args:
        recipe: Seed and model.
        manifest: Classes and task.
        images: A few images (N, C, H, W), on which a conversion is measured.

    Raises:
        UnsupportedModelError: If the backbone is unknown or its head cannot be converted exactly.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        settings = recipe.model
        black_box = create_black_box(
            settings.backbone, num_classes=len(manifest.classes), weights=settings.weights, **settings.arguments
        )
        mark = fingerprint(black_box)
        if settings.new_head:
            _renew_head(black_box, len(manifest.classes))
    if settings.kind == "softcam":
        model: nn.Module = convert(black_box.eval(), images=images, multi_label=manifest.task == "multilabel")
    else:
        model = black_box
    return Start(model.to(memory_format=torch.channels_last), mark)


def _renew_head(black_box: nn.Module, num_classes: int) -> None:
    """Give the classifier small random weights.

    Libraries scale a new classifier for many classes. For two, timm's EfficientNets draw weights up to 0.7, a noise
    that a short training does not take out of the evidence maps again.
    """
    heads = [
        module
        for module in black_box.modules()
        if getattr(module, "out_features", None) == num_classes or getattr(module, "out_channels", None) == num_classes
    ]
    for module in heads[-1:]:
        nn.init.normal_(module.get_parameter("weight"), std=HEAD_STD)
        if isinstance(module.bias, nn.Parameter):
            nn.init.zeros_(module.bias)


def prepare_features(
    start: Start, recipe: Recipe, datasets: dict[str, ImageDataset], folder: Path, *, report: Report | None = None
) -> dict[str, Features]:
    """Return cached features of a recipe's trunk by split, for a recipe that has one.

    Both twins, and recipes that differ only in what comes after the trunk, find the same files.

    Args:
        start: The model, and what it was made from.
        recipe: Trunk, views, seed, augmentation.
        datasets: Images by split.
        folder: Where the files are.
        report: Called with the rows that are done and the rows in all, for each split.
    """
    features = {}
    for split, dataset in datasets.items():
        views = max(stage.views for stage in recipe.stages) if split == "train" else 1
        key = cache_key(
            data=dataset.manifest.digest(),
            weights=start.fingerprint,
            preprocessing=dataset.preprocessing.to_dict(),
            recipe=_cache_part(recipe, split),
            trunk=recipe.trunk,
            views=views,
        )
        plan = CachePlan(
            folder / f"{split}-{key}.npy",
            str(recipe.trunk),
            views=views,
            batch_size=recipe.data.batch_size,
            num_workers=recipe.data.num_workers,
        )
        features[split] = cache_features(start.model, dataset, plan, report=report)
    return features


def _cache_part(recipe: Recipe, split: str) -> dict[str, object]:
    # Validation images are neither augmented nor drawn.
    values = recipe.to_dict()
    part: dict[str, object] = {"backbone": values["model"]["backbone"], "arguments": values["model"]["arguments"]}
    return part | ({"seed": recipe.seed, "augmentation": values["data"]["augmentation"]} if split == "train" else {})
