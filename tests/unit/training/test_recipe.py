from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from softcam.errors import RecipeError
from softcam.training.parts import Stage
from softcam.training.recipe import Recipe, change_recipe, list_recipes, read_recipe


def build(**changes: Any) -> Recipe:
    return Recipe.from_dict({"name": "r", "stages": [{"epochs": 1}], **changes})


@pytest.mark.parametrize("name", list_recipes())
def test_every_packaged_recipe_reads_and_survives_a_round_trip(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe


def test_packaged_recipes_are_the_documented_ones() -> None:
    medical = {"kaggle-dr", "kaggle-dr-5", "retinal-oct", "retinal-oct-4", "rsna"}
    assert set(list_recipes()) == {"default", "elpv-demo", "elpv-full", *medical}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 1}, r"got 'sead'\. Did you mean 'seed'"),
        ({"optimizer": {"learning_rate": 1}}, r"got 'optimizer\.learning_rate'"),
        ({"optimizer": {"weigth_decay": 1}}, r"Did you mean 'optimizer\.weight_decay'"),
        ({"data": {"augmentation": {"hflipp": True}}}, r"Did you mean 'data\.augmentation\.hflip'"),
        ({"stages": [{"epochs": 1}, {"epoch": 1}]}, r"Did you mean 'stages\[1\]\.epochs'"),
        ({"data": {"augmentation": {"rotation": 181}}}, r"Expected `data\.augmentation` to be complete and in range"),
        ({"seed": True}, r"Expected `seed` to be of type int, but got True"),
        ({"seed": 1.5}, r"Expected `seed` to be of type int, but got 1\.5"),
        ({"seed": -1}, r"Expected `seed` to be in \[0, 2\*\*32\)"),
        ({"name": ""}, r"Expected `name` to be a word"),
        ({"stages": []}, r"Expected `stages` to be at least one stage"),
        ({"stages": {"epochs": 1}}, r"Expected `stages` to be a list"),
        ({"stages": [{"epochs": 0}]}, r"Expected `stages\.epochs` to be >= 1, but got 0"),
        ({"stages": [{}]}, r"Expected `stages\[0\]` to be complete"),
        ({"stages": [{"epochs": 1, "views": 2}]}, r"Expected `stages\.views` to be 1 without a trunk"),
        ({"stages": [{"epochs": 1, "trunk": "a", "views": 0}]}, r"Expected `stages\.views` to be >= 1"),
        ({"stages": [{"epochs": 1, "trunk": ""}]}, r"Expected `stages\.trunk` to be the name"),
        ({"stages": [{"epochs": 1, "lr": 0}]}, r"Expected `stages\.lr` to be a finite number > 0"),
        ({"stages": [{"epochs": 1}, {"epochs": 1, "trunk": "a"}]}, r"set only before stages that train everything"),
        ({"stages": [{"epochs": 1, "trunk": "a"}, {"epochs": 1, "trunk": "b"}]}, r"the same name in every stage"),
        ({"model": {"kind": "black-box"}}, r"Expected `model\.kind` to be one of softcam, black_box"),
        ({"model": {"kind": "black_box"}, "penalty": {"l1": 1}}, r"zero for a black box"),
        ({"penalty": {"l1": -1e-9}}, r"Expected `penalty\.l1` to be a finite number >= 0"),
        ({"penalty": {"l2": float("nan")}}, r"Expected `penalty\.l2` to be a finite number >= 0"),
        ({"penalty": None}, r"Expected `penalty` to be a mapping, but got NoneType"),
        ({"loss": {"label_smoothing": 1}}, r"Expected `loss\.label_smoothing` to be in \[0, 1\)"),
        ({"loss": {"class_weights": "some"}}, r"Expected `loss\.class_weights` to be one of balanced, effective, none"),
        ({"loss": {"focus": 0.5}}, r"Expected `loss\.focus` to be 0, or a finite number >= 1, but got 0\.5"),
        ({"data": {"sampling": "some"}}, r"Expected `data\.sampling` to be one of uniform, balanced"),
        (
            {"data": {"sampling": "balanced"}, "loss": {"class_weights": "effective"}},
            r"Expected `loss\.class_weights` to be none with data\.sampling balanced",
        ),
        ({"optimizer": {"lr": 0}}, r"Expected `optimizer\.lr` to be a finite number > 0"),
        ({"optimizer": {"lr": "fast"}}, r"Expected `optimizer\.lr` to be of type float, but got 'fast'"),
        ({"optimizer": {"weight_decay": -1}}, r"Expected `optimizer\.weight_decay`"),
        ({"optimizer": {"momentum": 1}}, r"Expected `optimizer\.momentum` to be in \[0, 1\)"),
        ({"optimizer": {"gradient_clip": 0}}, r"Expected `optimizer\.gradient_clip`"),
        ({"optimizer": {"name": "sgd", "momentum": 0}}, r"Expected `optimizer\.nesterov` to be false"),
        ({"schedule": {"warmup_epochs": -1}}, r"Expected `schedule\.warmup_epochs`"),
        ({"schedule": {"min_lr": -1}}, r"Expected `schedule\.min_lr`"),
        ({"early_stopping": {"patience": 0}}, r"Expected `early_stopping\.patience` to be >= 1"),
        ({"averaging": 1}, r"Expected `averaging` to be in \[0, 1\)"),
        ({"data": {"source": ""}}, r"Expected `data\.source`"),
        ({"data": {"image_size": 1}}, r"Expected `data\.image_size` to be >= 2"),
        ({"data": {"batch_size": 0}}, r"Expected `data\.batch_size` to be >= 1"),
        ({"data": {"num_workers": -1}}, r"Expected `data\.num_workers` to be >= 0"),
        ({"data": {"preprocessing": [1]}}, r"Expected `data\.preprocessing` to be of type mapping"),
    ],
)
def test_wrong_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(**changes)


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    assert build(optimizer={"lr": "1e-3"}).optimizer.lr == 1e-3


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    recipe = build(data={"augmentation": {"scale": [0.8, 1]}}, penalty={"l1": 1})
    assert recipe.data.augmentation.scale == (0.8, 1.0)
    assert isinstance(recipe.penalty.l1, float)


def test_twin_differs_by_kind_and_penalty_alone() -> None:
    recipe = build(penalty={"l1": 1, "l2": 2}, optimizer={"lr": 0.5}, seed=3)
    theirs, ours = recipe.twin().to_dict(), recipe.to_dict()
    assert {key for key in ours if ours[key] != theirs[key]} == {"model", "penalty"}
    assert recipe.twin().model.kind == "black_box"
    assert not recipe.twin().penalty.active


def test_stages_follow_each_other() -> None:
    recipe = build(stages=[{"epochs": 2, "trunk": "a", "views": 3}, {"epochs": 1}])
    assert [recipe.stage_at(epoch).trunk for epoch in range(5)] == ["a", "a", None, None, None]
    assert (recipe.epochs, recipe.trunk) == (3, "a")
    assert recipe.stages[0] == Stage(2, "a", 3)


def test_a_file_is_read_with_its_name_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {source: sub/manifest.csv}\nstages: [{epochs: 3}]\n", encoding="utf-8")
    recipe = read_recipe(path)
    assert recipe.name == "mine"
    assert recipe.data.source == str(tmp_path / "sub" / "manifest.csv")


def test_a_built_in_source_is_no_path(tmp_path: Path) -> None:
    path = tmp_path / "cells.yaml"
    path.write_text("data: {source: elpv}\nstages: [{epochs: 3}]\n", encoding="utf-8")
    assert read_recipe(path).data.source == "elpv"


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "to be YAML"), ("- 1", "a mapping of keys, but got list"), ("seed: 1", "complete")]
)
def test_files_that_are_no_recipe_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


def test_a_missing_recipe_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="one of default, elpv-demo"):
        read_recipe(tmp_path / "none.yaml")


def test_values_of_a_recipe_are_replaced_by_name() -> None:
    recipe = read_recipe("default")
    changes = ["penalty.l1=2e-5", "model.at=[16, layer3]", "model.arguments.drop_rate=0.1", "name=mine"]
    found = change_recipe(recipe, changes)
    assert (found.penalty.l1, found.model.at, found.name) == (2e-5, (16, "layer3"), "mine")
    assert found.model.arguments == {"drop_rate": 0.1}
    assert change_recipe(recipe, []) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("penalty.l1", "key=value, but got 'penalty.l1'"),
        ("=3", "key=value"),
        ("penalty.l3=1", "Did you mean 'penalty.l2'"),
        ("penal.l1=1", "known key, but got 'penal.l1'"),
        ("seed.x=1", "known key, but got 'seed.x'"),
        ("penalty.l1=[", "the value of 'penalty.l1' to be YAML"),
        ("penalty.l1=many", "of type float"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        change_recipe(read_recipe("default"), [change])


def test_the_kappa_picks_the_epoch_of_grades_alone() -> None:
    recipe = read_recipe("default")
    assert change_recipe(recipe, ["early_stopping.monitor=val_kappa", "data.ordinal=true"]).data.ordinal
    with pytest.raises(RecipeError, match=r"early_stopping\.monitor` to be another metric unless data\.ordinal is set"):
        change_recipe(recipe, ["early_stopping.monitor=val_kappa"])


@pytest.mark.parametrize("change", ["schedule.span=1", "schedule.floor=-1.0", "schedule.floor=.inf"])
def test_a_schedule_out_of_range_is_refused(change: str) -> None:
    with pytest.raises(RecipeError, match=r"schedule\.(span|floor)"):
        change_recipe(read_recipe("default"), [change])
