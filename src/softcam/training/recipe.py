"""Recipes: everything that decides a training run, read from YAML into frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from softcam.data.sources import SOURCES
from softcam.errors import RecipeError
from softcam.files import write_atomic
from softcam.training.parts import (
    DataRecipe,
    EarlyStoppingRecipe,
    LossRecipe,
    ModelRecipe,
    OptimizerRecipe,
    PenaltyRecipe,
    ScheduleRecipe,
    Stage,
)
from softcam.training.values import build, plain, require


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    Args:
        name: What the run is called in reports.
        seed: Decides random weights, order of images, augmentation and dropout, >= 0.
        data: Which images, and how they reach the network.
        model: Which network.
        penalty: Strengths of the penalty on the evidence maps.
        loss: The classification loss.
        optimizer: How weights move.
        schedule: How the learning rate moves.
        early_stopping: When to stop, and which epoch is the best.
        averaging: Decay per step of an exponential moving average of the weights, in [0, 1); 0 is off.
        precision: `auto` is float32 on a CPU and mixed precision on a GPU.
        deterministic: Whether only deterministic kernels may be used.
        stages: What is trained, one after the other.

    Example:
        >>> recipe = Recipe(name="short", stages=(Stage(epochs=2),))
        >>> recipe.epochs, recipe.twin().model.kind
        (2, 'black_box')
    """

    name: str
    stages: tuple[Stage, ...]
    seed: int = 0
    data: DataRecipe = field(default_factory=DataRecipe)
    model: ModelRecipe = field(default_factory=ModelRecipe)
    penalty: PenaltyRecipe = field(default_factory=PenaltyRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    early_stopping: EarlyStoppingRecipe = field(default_factory=EarlyStoppingRecipe)
    averaging: float = 0.0
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto"
    deterministic: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range and combinations that contradict each other."""
        require(bool(self.name), "name", "a word", self.name)
        require(0 <= self.seed < 2**32, "seed", "in [0, 2**32)", self.seed)
        require(0 <= self.averaging < 1, "averaging", "in [0, 1)", self.averaging)
        require(len(self.stages) >= 1, "stages", "at least one stage", "none")
        trunks = [stage.trunk for stage in self.stages]
        names = {trunk for trunk in trunks if trunk is not None}
        require(len(names) <= 1, "stages.trunk", "the same name in every stage that has one", sorted(names))
        # Cached features come from the starting weights: they are stale once the trunk has been trained.
        late = any(before is None and after is not None for before, after in pairwise(trunks))
        require(not late, "stages.trunk", "set only before stages that train everything", trunks)
        if self.model.kind == "black_box":
            require(not self.penalty.active, "penalty", "zero for a black box, which has no maps", self.penalty)
        needs_grades = self.early_stopping.monitor == "val_kappa" and not self.data.ordinal
        require(not needs_grades, "early_stopping.monitor", "another metric unless data.ordinal is set", "val_kappa")
        weights = self.loss.class_weights
        once = self.data.sampling == "uniform" or weights == "none"
        require(once, "loss.class_weights", "none with data.sampling balanced: a rare class counts once", weights)
        scales, places = len(self.penalty.scales), len(self.model.at)
        require(scales in (0, places), "penalty.scales", f"one factor for each of {places} places", scales)

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def trunk(self) -> str | None:
        """The submodule whose output is cached, if any stage has one."""
        return self.stages[0].trunk

    def stage_at(self, epoch: int) -> Stage:
        """Return the stage that `epoch`, counted from 0 over all stages, belongs to; the last one from the end on."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        return self.stages[-1]

    def twin(self) -> Recipe:
        """Return the recipe of the black box that is trained alike: no maps, hence no penalty, and no teacher."""
        model = dataclasses.replace(self.model, kind="black_box", at=(), layers=None)
        loss = dataclasses.replace(self.loss, teacher=None)
        return dataclasses.replace(self, model=model, penalty=PenaltyRecipe(), loss=loss)

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested values that `Recipe.from_dict` reads back."""
        return cast("dict[str, Any]", plain(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Build a recipe from nested mappings.

        Raises:
            RecipeError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        return build(cls, values)


def list_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with softcam.

    Example:
        >>> "default" in list_recipes()
        True
    """
    folder = resources.files("softcam.training") / "recipes"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def read_recipe(source: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        source: A YAML file, or the name of a recipe that comes with softcam.

    Raises:
        RecipeError: If there is no such recipe, it is not YAML, or it holds an unknown key or a wrong value.

    Example:
        >>> read_recipe("default").model.kind
        'softcam'
    """
    if str(source) in list_recipes():
        text = (resources.files("softcam.training") / "recipes" / f"{source}.yaml").read_text(encoding="utf-8")
        return _parse(text, str(source))
    path = Path(source)
    if not path.is_file():
        names = ", ".join(list_recipes())
        raise RecipeError(f"Expected a recipe file or one of {names}, but got {str(source)!r}.")
    return _anchored(_parse(path.read_text(encoding="utf-8"), path.stem), path.parent)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe whole or not at all, such that it can be read from anywhere: its paths are absolute.

    Args:
        recipe: The recipe; its relative paths start at the current folder.
        path: The YAML file; its folder is created if needed.
    """
    write_atomic(path, yaml.safe_dump(_anchored(recipe, Path.cwd()).to_dict(), sort_keys=False))


def change_recipe(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """Return a recipe with some values replaced.

    Args:
        recipe: The recipe.
        changes: Each as `key=value` with the key's dotted name and the value in YAML, such as `penalty.l1=2e-5` or
            `model.at=[16]`. A relative path starts at the current folder.

    Raises:
        RecipeError: If a change has no `=`, or a key is unknown, or a value has the wrong type or range.

    Example:
        >>> change_recipe(read_recipe("default"), ["penalty.l1=2e-5", "data.batch_size=8"]).penalty.l1
        2e-05
    """
    values = recipe.to_dict()
    for change in changes:
        name, equals, text = change.partition("=")
        if not (name and equals):
            raise RecipeError(f"Expected a change of a recipe to be key=value, but got {change!r}.")
        *folders, key = name.split(".")
        place = values
        for folder in folders:
            if not isinstance(place.get(folder), dict):
                raise RecipeError(f"Expected a known key, but got {name!r}. Known keys: {', '.join(values)}.")
            place = place[folder]
        try:
            place[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"Expected the value of {name!r} to be YAML, but got {text!r}.") from error
    return Recipe.from_dict(values)


def _parse(text: str, name: str) -> Recipe:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"Expected recipe {name!r} to be YAML, but {error}") from error
    if not isinstance(values, Mapping):
        raise RecipeError(f"Expected recipe {name!r} to be a mapping of keys, but got {type(values).__name__}.")
    return Recipe.from_dict({"name": name, **values})


def _anchored(recipe: Recipe, folder: Path) -> Recipe:
    data, model = recipe.data, recipe.model
    if data.source not in SOURCES:
        data = dataclasses.replace(data, source=str((folder / data.source).resolve()))
    if model.origin is not None:
        model = dataclasses.replace(model, weights=str((folder / model.origin).resolve()))
    loss = recipe.loss
    if loss.teacher is not None:
        loss = dataclasses.replace(loss, teacher=str((folder / loss.teacher).resolve()))
    return dataclasses.replace(recipe, data=data, model=model, loss=loss)
