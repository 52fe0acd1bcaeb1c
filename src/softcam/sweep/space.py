"""What a search tries: strengths of the penalty, places of the evidence layer, map strides and backbones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from torch import Tensor

from softcam.errors import RecipeError
from softcam.sweep.places import Place, name_place, place_recipe
from softcam.training import Recipe
from softcam.training.values import at_least

STRENGTHS = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Strengths of l1 that are tried unless others are named: from one that is hardly felt to one that costs accuracy."""

SIZE_FREE = 100.0
"""By how much they are larger where the penalty is a mean over cells and classes: 7 x 7 cells of two are 98."""


class Form(NamedTuple):
    """What a model is like beside the strengths of its penalty.

    Args:
        at: Places of the class evidence layers; none for that of the pooling.
        map_stride: Input pixels per cell; None for the backbone's own.
        backbone: Name as in `softcam.backbones`.
    """

    at: Place
    map_stride: int | None
    backbone: str


@dataclass(frozen=True)
class Point:
    """One model of a search.

    Args:
        l1: Strength of the absolute values.
        l2: Strength of the Euclidean norm.
        form: What else it is.
    """

    l1: float
    l2: float
    form: Form

    @property
    def is_dense(self) -> bool:
        """Whether nothing is penalised."""
        return self.l1 == self.l2 == 0

    @property
    def name(self) -> str:
        """A name for folders and tables."""
        at, map_stride, model = self.form
        backbone, place = model.replace(":", "-").replace("/", "-"), name_place(at).replace("+", "-")
        stride = "" if map_stride is None else f"_stride-{map_stride}"
        return f"{backbone}_at-{place}{stride}_l1-{self.l1:.12g}_l2-{self.l2:.12g}"

    def recipe(self, base: Recipe, images: Tensor) -> Recipe:
        """Return how the model is trained.

        Args:
            base: Everything else.
            images: One image (1, C, H, W) of the size that is used.
        """
        model = replace(base.model, backbone=self.form.backbone, map_stride=self.form.map_stride)
        penalty = replace(base.penalty, l1=self.l1, l2=self.l2)
        return place_recipe(replace(base, model=model, penalty=penalty), self.form.at, images)


@dataclass(frozen=True)
class Space:
    """The values that are tried, each with each; what is left empty stays as the recipe has it.

    Args:
        l1: Strengths of the absolute values; empty for `STRENGTHS`, or a hundred times these where the recipe's penalty
            is `size_free`.
        l2: Strengths of the Euclidean norm; empty for 0.
        at: Places of the class evidence layer.
        map_strides: Input pixels per cell; None for the backbone's own.
        backbones: Names as in `softcam.backbones`.

    Raises:
        RecipeError: If a value is out of range or named twice.
    """

    l1: tuple[float, ...] = ()
    l2: tuple[float, ...] = ()
    at: tuple[Place, ...] = ()
    map_strides: tuple[int | None, ...] = ()
    backbones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("l1", "l2"):
            values = getattr(self, name)
            if not all(at_least(value, 0) for value in values):
                raise RecipeError(f"Expected the strengths `{name}` to be finite and >= 0, but got {list(values)}.")
        for name in ("l1", "l2", "at", "map_strides", "backbones"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise RecipeError(f"Expected each value of `{name}` once, but got {list(values)}.")

    def complete(self, recipe: Recipe) -> Space:
        """Return the space with what a recipe says in place of what is empty."""
        factor = SIZE_FREE if recipe.penalty.size_free else 1.0
        return Space(
            l1=self.l1 or tuple(factor * strength for strength in STRENGTHS),
            l2=self.l2 or (0.0,),
            at=self.at or (recipe.model.at,),
            map_strides=self.map_strides or (recipe.model.map_stride,),
            backbones=self.backbones or (recipe.model.backbone,),
        )

    def list_forms(self) -> tuple[Form, ...]:
        """Return every form."""
        return tuple(Form(*parts) for parts in product(self.at, self.map_strides, self.backbones))

    def list_dense(self) -> tuple[Point, ...]:
        """Return the point without penalty of each form."""
        return tuple(Point(0.0, 0.0, form) for form in self.list_forms())

    def list_grid(self) -> tuple[Point, ...]:
        """Return every point, those without penalty first, whether they were named or not."""
        points = (Point(l1, l2, form) for l1, l2, form in product(self.l1, self.l2, self.list_forms()))
        return tuple(dict.fromkeys((*self.list_dense(), *points)))
