"""Places of the class evidence layer, as a user writes them and as a recipe has them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from softcam.backbones import create_black_box
from softcam.data import Manifest
from softcam.errors import RecipeError
from softcam.imaging import decode_image
from softcam.nn.stages import comes_before, find_stages, list_strides
from softcam.training import Recipe
from softcam.training.preparation import choose_preprocessing

POOLING = "pooling"
"""The place of the paper: where the black box pools its last feature map."""

FINEST = 8
"""Stride of the finest place that is tried unless others are named; earlier stages know edges and colours."""

Place = tuple[int | str, ...]


def parse_place(text: str) -> Place:
    """Return the places of one model's class evidence layers; none for the place of the pooling.

    Args:
        text: `pooling`, a stride, the name of a module, or several joined by `+`.

    Raises:
        RecipeError: If a part is empty, or `pooling` is one of several.

    Example:
        >>> parse_place("16+32"), parse_place("blocks.4"), parse_place("pooling")
        ((16, 32), ('blocks.4',), ())
    """
    parts = [part.strip() for part in text.split("+")]
    if parts == [POOLING]:
        return ()
    if not all(parts) or POOLING in parts:
        raise RecipeError(f"Expected a place to be {POOLING}, strides or names of modules, but got {text!r}.")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def name_place(place: Place) -> str:
    """Return what `parse_place` reads.

    Example:
        >>> name_place((16, "blocks.6"))
        '16+blocks.6'
    """
    return "+".join(map(str, place)) or POOLING


def list_places(recipe: Recipe, images: Tensor) -> tuple[Place, ...]:
    """Return the place of the pooling and, from coarse to fine, every stride from 8 px on that the backbone has.

    Args:
        recipe: Its backbone.
        images: One image (1, C, H, W) of the size that is used.
    """
    stages = list_strides(_create(recipe), images[:1])
    strides = sorted((stage.stride(images.shape[2:])[0] for stage in stages), reverse=True)
    return ((), *((stride,) for stride in strides if stride >= FINEST))


def place_recipe(recipe: Recipe, place: Place, images: Tensor) -> Recipe:
    """Return the recipe of the model whose evidence layer sits at a place.

    A trunk that would end after the place ends there.

    Args:
        recipe: The recipe.
        place: Where the class evidence layers go.
        images: One image (1, C, H, W) of the size that is used.

    Raises:
        UnsupportedModelError: If the backbone has no such stage.
    """
    penalty = recipe.penalty if len(recipe.penalty.scales) == len(place) else replace(recipe.penalty, scales=())
    placed = replace(recipe, model=replace(recipe.model, at=place), penalty=penalty)
    if recipe.trunk is None or not place:
        return placed
    network = _create(recipe)
    first = find_stages(network, images[:1], place)[0].name
    if first == recipe.trunk or comes_before(network, images[:1], recipe.trunk, first):
        return placed
    stages = tuple(replace(stage, trunk=first if stage.trunk else None) for stage in recipe.stages)
    return replace(placed, stages=stages)


def read_example(recipe: Recipe, manifest: Manifest) -> Tensor:
    """Return the first validation image as the recipe's backbone takes it, (1, C, H, W).

    Args:
        recipe: Its backbone and size.
        manifest: Table of images.
    """
    image, _ = choose_preprocessing(recipe)(decode_image(manifest.subset("val").paths[0]))
    return image[None]


def _create(recipe: Recipe) -> torch.nn.Module:
    return create_black_box(recipe.model.backbone, **recipe.model.arguments).eval()
