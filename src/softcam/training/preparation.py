"""From a recipe to what a run works on: the table of images, the preprocessing, the model to start from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from softcam.backbones import Weights, create_black_box, default_preprocessing
from softcam.bundle import adopt, find_bundle, fingerprint, load, load_black_box, read_checkpoint, read_config
from softcam.data import ImageDataset, Manifest, read_manifest
from softcam.data.sources import SOURCES, prepare_source
from softcam.errors import BundleError, RecipeError, SoftCAMWarning
from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM, convert
from softcam.training.cache import CachePlan, Report, cache_features, cache_key
from softcam.training.parts import ModelRecipe
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
    manifest = read_manifest(recipe.data.source, classes=recipe.data.classes)
    if recipe.data.ordinal and manifest.task == "multilabel":
        raise RecipeError("Expected one grade per image, since `data.ordinal` is set, but the manifest is multi-label.")
    return manifest


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
        UnsupportedModelError: If the backbone is unknown or cannot be converted as the recipe asks.
        BundleError: If the weights' folder is no bundle, or one of another backbone, or their file does not fit it.
        RecipeError: If that bundle has other classes, or is a SoftCAM model where the recipe asks for something else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        begin = _continue if _is_softcam(recipe.model) else _begin
        start = begin(recipe, manifest, images)
    return replace(start, model=start.model.to(memory_format=torch.channels_last))


def _begin(recipe: Recipe, manifest: Manifest, images: Tensor) -> Start:
    """Return a black box, or the SoftCAM model that is converted from it."""
    settings, num_classes = recipe.model, len(manifest.classes)
    black_box = _create_black_box(settings, num_classes)
    mark = fingerprint(black_box)
    if settings.renews_head:
        _renew_head(black_box, num_classes)
    return Start(black_box if settings.kind == "black_box" else _convert(black_box, recipe, manifest, images), mark)


def _is_softcam(settings: ModelRecipe) -> bool:
    if settings.origin is None or settings.is_file:
        return False
    if not Path(settings.origin).exists():
        raise BundleError(
            "Expected `model.weights` to be pretrained, none, a model or run folder, or a file of weights, but there "
            f"is nothing at {settings.origin!r}."
        )
    return read_config(find_bundle(settings.origin)).kind == "softcam"


def _create_black_box(settings: ModelRecipe, num_classes: int) -> nn.Module:
    def create(weights: Weights) -> nn.Module:
        return create_black_box(settings.backbone, num_classes=num_classes, weights=weights, **settings.arguments)

    if settings.origin is None:
        return create("none" if settings.weights == "none" else "pretrained")
    network = create("none")
    if not settings.is_file:
        return load_black_box(find_bundle(settings.origin), model=network)
    head = _find_head(network, num_classes) if settings.renews_head else None
    adopt(network, read_checkpoint(settings.origin), renewed=head)
    return network


def _continue(recipe: Recipe, manifest: Manifest, _images: Tensor) -> Start:
    """Return the SoftCAM model of a bundle, to be trained on."""
    path = find_bundle(str(recipe.model.origin))
    settings = ModelRecipe(backbone=recipe.model.backbone, weights=recipe.model.weights)
    if recipe.model != settings:
        raise RecipeError(
            "Expected `model` to have nothing beside `backbone` and `weights`, since the weights are those of a "
            "SoftCAM model, whose form is decided. Start from its black box to change it."
        )
    classes = read_config(path).classes
    if tuple(classes) != tuple(manifest.classes):
        raise RecipeError(f"Expected a bundle with the classes of the data, but got {classes}. Convert it again.")
    model = load(path)
    return Start(model, fingerprint(model))


def _convert(black_box: nn.Module, recipe: Recipe, manifest: Manifest, images: Tensor) -> SoftCAM:
    settings = recipe.model
    # A single convolution is no copy of a head with hidden layers: it has to be a new one.
    is_new = settings.head == "linear" and settings.renews_head
    model = convert(
        black_box.eval(),
        images=images,
        num_classes=len(manifest.classes) if is_new else None,
        multi_label=manifest.task == "multilabel",
        **settings.conversion(),
    )
    if not (model.conversion.exact or is_new or settings.at or settings.map_stride):
        notes = "; ".join(model.conversion.notes)
        warnings.warn(
            f"Expected {settings.backbone} to keep its logits, but its head cannot: {notes}. It is trained from there.",
            SoftCAMWarning,
            stacklevel=2,
        )
    return model


def _renew_head(black_box: nn.Module, num_classes: int) -> None:
    """Give the classifier small random weights.

    Libraries scale a new classifier for many classes. For two, timm's EfficientNets draw weights up to 0.7, a noise
    that a short training does not take out of the evidence maps again.
    """
    name = _find_head(black_box, num_classes)
    if name is not None:
        module = black_box.get_submodule(name)
        nn.init.normal_(module.get_parameter("weight"), std=HEAD_STD)
        if isinstance(module.bias, nn.Parameter):
            nn.init.zeros_(module.bias)


def _find_head(black_box: nn.Module, num_classes: int) -> str | None:
    """Return the dotted name of the last module that gives as many values as there are classes."""
    names = [
        name
        for name, module in black_box.named_modules()
        if getattr(module, "out_features", None) == num_classes or getattr(module, "out_channels", None) == num_classes
    ]
    return names[-1] if names else None


def prepare_features(
    start: Start, recipe: Recipe, datasets: dict[str, ImageDataset], folder: Path, *, report: Report | None = None
) -> dict[str, Path]:
    """Return the files of cached features of a recipe's trunk by split, for a recipe that has one.

    Both twins, and recipes that differ only in what comes after the trunk, find the same files.

    Args:
        start: The model, and what it was made from.
        recipe: Trunk, views, seed, augmentation.
        datasets: Images by split.
        folder: Where the files are.
        report: Called with the rows that are done and the rows in all, for each split.
    """
    paths = {}
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
        cache_features(start.model, dataset, plan, report=report)
        paths[split] = plan.path
    return paths


def _cache_part(recipe: Recipe, split: str) -> dict[str, object]:
    # Validation images are neither augmented nor drawn.
    values = recipe.to_dict()
    shaping = ("backbone", "arguments", "map_stride")
    part: dict[str, object] = {name: values["model"][name] for name in shaping if values["model"][name] is not None}
    if recipe.model.kind == "black_box":
        part.pop("map_stride", None)  # by dilation of the trunk, which only a SoftCAM model has
    return part | ({"seed": recipe.seed, "augmentation": values["data"]["augmentation"]} if split == "train" else {})
