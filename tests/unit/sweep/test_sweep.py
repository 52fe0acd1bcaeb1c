from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from softcam.cli import main
from softcam.data import Manifest
from softcam.errors import RecipeError, UnsupportedModelError
from softcam.evaluation.localization import LOCALIZATION
from softcam.sweep import PlaceRow, SweepResult, SweepSettings, sweep, write_sweep
from softcam.sweep.places import list_places, name_place, parse_place, place_recipe
from softcam.training import Recipe

Create = Callable[..., Recipe]
IMAGES = torch.zeros(1, 3, 64, 64)


@pytest.fixture(scope="module")
def found(
    manifest: Manifest, create_recipe: Create, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SweepResult, Path]:
    folder = tmp_path_factory.mktemp("sweep")
    settings = SweepSettings(places=((), (16,), (8, 16)), located=6)
    result = sweep(create_recipe(manifest), folder, settings=settings, progress=False)
    return result, write_sweep(result, folder)


@pytest.mark.slow
def test_every_place_is_measured_against_one_black_box(found: tuple[SweepResult, Path]) -> None:
    result, _ = found
    assert [row.place for row in result.rows] == ["pooling", "16", "8+16"]
    assert [row.grid for row in result.rows] == [(2, 2), (4, 4), (8, 8)]
    assert (result.images, result.located) == (24, 6)
    for row in result.rows:
        assert 0 <= row.auroc <= 1
        assert row.difference == pytest.approx(row.auroc - result.black_box, abs=1e-9)
        assert row.low <= row.difference
        assert row.not_inferior == (row.low > -0.02)
        assert 0 < row.receptive_field < 64
        assert row.context_swap >= 0
        assert set(row.localization) == set(LOCALIZATION)
    assert [len(row.shares) for row in result.rows] == [0, 0, 2]
    assert sum(result.rows[2].shares) == pytest.approx(1.0)


@pytest.mark.slow
def test_the_files_hold_what_was_found(found: tuple[SweepResult, Path]) -> None:
    result, folder = found
    table = pd.read_csv(folder / "sweep.csv")
    assert list(table["place"]) == ["pooling", "16", "8+16"]
    assert table["auroc"].tolist() == pytest.approx([row.auroc for row in result.rows])
    stored = json.loads((folder / "sweep.json").read_text())
    assert stored["chosen"] == (result.chosen.place if result.chosen else None)
    assert stored["provenance"]["recipe"]["name"] == "tiny"
    with Image.open(folder / "sweep.png") as image:
        assert image.size[0] > 600


@pytest.mark.slow
def test_the_same_call_goes_on_from_finished_runs(
    found: tuple[SweepResult, Path], manifest: Manifest, create_recipe: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = found
    monkeypatch.setattr("softcam.training.run.fit", lambda *_, **__: pytest.fail("trained again"))
    settings = SweepSettings(places=((), (16,), (8, 16)), located=6)
    again = sweep(create_recipe(manifest), folder, settings=settings, progress=False)
    assert again.to_dict() == result.to_dict()


@pytest.mark.slow
def test_places_of_independent_labels_are_measured(labels: Manifest, create_recipe: Create, tmp_path: Path) -> None:
    settings = SweepSettings(places=((), (16,)), located=6)
    result = sweep(create_recipe(labels), tmp_path, settings=settings, progress=False)
    assert [row.place for row in result.rows] == ["pooling", "16"]
    for row in result.rows:
        assert 0 <= row.auroc <= 1  # over the labels that some images have and others do not
        assert row.low <= row.difference == pytest.approx(row.auroc - result.black_box, abs=1e-9)
        assert set(row.localization) == set(LOCALIZATION)


def row(place: str, *, field: float, passed: bool) -> PlaceRow:
    return PlaceRow(place, (), (16, 16), (4, 4), 0.9, -0.01, -0.015 if passed else -0.03, passed, field, 0.5, 0.1)


def test_the_rule_takes_the_most_local_place_that_keeps_up() -> None:
    rows = (row("a", field=60, passed=True), row("b", field=20, passed=False), row("c", field=40, passed=True))
    result = SweepResult(rows, 0.91, 0.02, 100, 10, {})
    assert result.chosen is rows[2]
    assert str(result).startswith("c: the most local place that is not inferior")
    none = replace(result, rows=rows[1:2])
    assert none.chosen is None
    assert "No place is shown to be not inferior" in str(none)
    assert "The closest is b" in str(none)


@pytest.mark.parametrize(
    ("text", "place"), [("pooling", ()), ("16", (16,)), ("blocks.1 + 32", ("blocks.1", 32)), ("16+32", (16, 32))]
)
def test_places_are_written_as_they_are_read(text: str, place: tuple[int | str, ...]) -> None:
    assert parse_place(text) == place
    assert parse_place(name_place(place)) == place


@pytest.mark.parametrize("text", ["", "16+", "pooling+16"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="Expected a place to be pooling, strides or names of modules"):
        parse_place(text)


def test_the_trunk_ends_where_the_evidence_layer_sits(manifest: Manifest, create_recipe: Create) -> None:
    recipe = create_recipe(manifest)
    assert place_recipe(recipe, (), IMAGES).trunk == "blocks.2"
    assert place_recipe(recipe, ("blocks.1",), IMAGES).trunk == "blocks.1"
    assert place_recipe(recipe, ("blocks.2",), IMAGES).trunk == "blocks.2"
    assert place_recipe(recipe, ("blocks.1", 32), IMAGES).trunk == "blocks.1"
    assert place_recipe(create_recipe(manifest, stages=[{"epochs": 1}]), ("blocks.1",), IMAGES).trunk is None


def test_all_strides_are_tried_by_default(manifest: Manifest, create_recipe: Create) -> None:
    assert list_places(create_recipe(manifest), IMAGES) == ((), (32,), (16,), (8,))


def test_what_cannot_be_swept_is_refused(manifest: Manifest, create_recipe: Create, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a black box, which has no maps"):
        sweep(create_recipe(manifest).twin(), tmp_path, progress=False)
    with pytest.raises(UnsupportedModelError, match="a stride of the network, but got 5"):
        sweep(create_recipe(manifest), tmp_path, settings=SweepSettings(places=((5,),)), progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{"margin": 0.0}, {"located": 1}, {"places": ()}, {"places": ((), ())}])
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="settings of the sweep to be in range"):
        SweepSettings(**changes)


@pytest.mark.slow
def test_the_command_says_what_the_rule_chooses(
    manifest: Manifest, create_recipe: Create, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = create_recipe(manifest).to_dict()
    recipe["data"]["source"] = str(manifest.root / "manifest.csv")
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    options = ["--config", str(tmp_path / "recipe.yaml"), "--at", "16", "--located", "4", "--margin", "0.9"]
    assert main(["sweep", *options, "--out", str(tmp_path / "out")]) == 0
    assert "16: the most local place" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "out" / "sweep.csv").is_file()
