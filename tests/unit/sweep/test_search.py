from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.bundle import read_config
from softcam.cli import main
from softcam.data import Manifest
from softcam.errors import DivergenceError, RecipeError, RunError, UnsupportedModelError
from softcam.evaluation.localization import LOCALIZATION
from softcam.metrics import auroc, noninferiority
from softcam.reporting.figures import to_vector
from softcam.runs import hold
from softcam.sweep import Point, SearchResult, SearchSettings, Space, TrialRow, search, trial, write_search
from softcam.sweep.pareto import pareto_figure
from softcam.sweep.search import LOCK
from softcam.sweep.selection import choose
from softcam.sweep.space import STRENGTHS, Form
from softcam.training import Recipe, read_recipe

Create = Callable[..., Recipe]
FORM = Form((), None, "timm:test_efficientnet")
SPACE = Space(l1=(0.01, 10.0), at=((), (16,)))
SETTINGS = SearchSettings(located=6, fills=("mean",))


def strip(result: SearchResult) -> dict[str, Any]:
    """Return what a search found, without the seconds that it took."""
    values = result.to_dict()
    return {**values, "rows": [{**row, "seconds": 0} for row in values["rows"]]}


@pytest.fixture(scope="module")
def found(
    manifest: Manifest, create_recipe: Create, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SearchResult, Path]:
    folder = tmp_path_factory.mktemp("search")
    result = search(create_recipe(manifest), folder, space=SPACE, settings=SETTINGS, progress=False)
    return result, write_search(result, folder)


@pytest.mark.slow
def test_every_model_is_compared_with_the_best_dense_one(found: tuple[SearchResult, Path], manifest: Manifest) -> None:
    result, folder = found
    assert [(row.point.l1, row.point.form.at) for row in result.rows] == [
        (0.0, ()), (0.0, (16,)), (0.01, ()), (0.01, (16,)), (10.0, ()), (10.0, (16,)),
    ]  # fmt: skip
    dense = [row for row in result.rows if row.point.is_dense]
    assert result.reference is max(dense, key=lambda row: row.auroc)
    assert (result.images, result.located) == (24, 6)
    targets = manifest.subset("val").targets
    scores = {
        row.point: np.array(
            json.loads((folder / "trials" / row.point.name / "measured.json").read_text())["probabilities"]
        )
        for row in result.rows
    }
    for row in result.rows:
        assert row.auroc == pytest.approx(auroc(scores[row.point][:, 1], targets))
        test = noninferiority(targets, scores[row.point][:, 1], scores[result.reference.point][:, 1], margin=0.02)
        assert (row.difference, row.low, row.not_inferior) == pytest.approx((test.difference, test.low, test.passed))
        assert set(row.values) == {"gini", "near_zero_share", "evidence", "deletion_area_mean", *LOCALIZATION}
    assert result.rows[4].values["evidence"] < 0.5 * result.rows[0].values["evidence"]


@pytest.mark.slow
def test_the_choice_and_the_front_follow_from_the_table(found: tuple[SearchResult, Path]) -> None:
    result, folder = found
    table = pd.read_csv(folder / "sweep.csv")
    fitting = table[table["low"] > -0.02]
    assert table["chosen"].sum() == 1
    assert table["chosen"].idxmax() in fitting.index[fitting["gini"] == fitting["gini"].max()]
    for _, row in table.iterrows():
        better = (table["auroc"] >= row["auroc"]) & (table["gini"] >= row["gini"])
        strictly = better & ((table["auroc"] > row["auroc"]) | (table["gini"] > row["gini"]))
        assert row["on_front"] == (not strictly.any())
    assert len(result.front) == table["on_front"].sum()


@pytest.mark.slow
def test_what_was_chosen_can_be_used_and_trained_again(found: tuple[SearchResult, Path], manifest: Manifest) -> None:
    result, folder = found
    assert result.chosen is not None
    assert read_config(folder / "model").fingerprint == read_config(result.chosen.model_path).fingerprint
    recipe = read_recipe(folder / "recipe.yaml")
    assert recipe == result.recipe
    assert (recipe.penalty.l1, recipe.model.at) == (result.chosen.point.l1, result.chosen.point.form.at)
    assert recipe.data.source == str(manifest.root / "manifest.csv")
    stored = json.loads((folder / "sweep.json").read_text())
    assert stored["chosen"] == result.chosen.point.name
    assert "not inferior to that of the best dense model" in stored["rule"]
    assert (folder / stored["rows"][0]["model_path"] / "config.json").is_file()
    assert (folder / "sweep.svg").read_text().count("<svg") == 1
    with Image.open(folder / "sweep.png") as image:
        assert image.size[0] > 1000


@pytest.mark.slow
def test_a_search_that_was_ended_goes_on_and_ends_alike(
    found: tuple[SearchResult, Path],
    manifest: Manifest,
    create_recipe: Create,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(line: str) -> None:
        if "gini" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(create_recipe(manifest), tmp_path, space=SPACE, settings=SETTINGS, progress=False, say=stop)
    begun = [path.parent.name for path in tmp_path.glob("trials/*/run.json")]
    assert begun == [found[0].rows[0].point.name]
    # By several processes: neither they nor the interruption decide anything.
    jobs = replace(SETTINGS, jobs=2)
    again = search(create_recipe(manifest), tmp_path, space=SPACE, settings=jobs, progress=False)
    assert strip(again) == strip(found[0])
    monkeypatch.setattr("softcam.training.run.fit", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("softcam.sweep.trial.predict_images", lambda *_, **__: pytest.fail("measured again"))
    assert strip(search(create_recipe(manifest), tmp_path, space=SPACE, settings=SETTINGS, progress=False)) == strip(
        again
    )


@pytest.mark.slow
def test_optuna_chooses_within_the_range_and_alike_every_time(
    manifest: Manifest, create_recipe: Create, tmp_path: Path
) -> None:
    pytest.importorskip("optuna", reason="it comes with the extra `sweep`")
    settings, space = replace(SETTINGS, trials=5), Space(l1=(0.001, 0.1), l2=(0.0, 0.01))
    lines: list[str] = []
    first = search(create_recipe(manifest), tmp_path, space=space, settings=settings, progress=False, say=lines.append)
    drawn = [row.point for row in first.rows[1:]]
    assert first.rows[0].point.is_dense
    assert len(drawn) == 5
    assert all(0.001 <= point.l1 <= 0.1 and point.l2 == 0.01 for point in drawn)
    assert all(float(f"{point.l1:.3g}") == point.l1 for point in drawn)
    again = search(create_recipe(manifest), tmp_path, space=space, settings=settings, progress=False)
    assert strip(again) == strip(first)
    other = replace(settings, seed=1)
    differs = search(create_recipe(manifest), tmp_path, space=space, settings=other, progress=False)
    assert [row.point for row in differs.rows] != [row.point for row in first.rows]


@pytest.mark.slow
def test_independent_labels_are_searched(labels: Manifest, create_recipe: Create, tmp_path: Path) -> None:
    result = search(create_recipe(labels), tmp_path, space=Space(l1=(0.01,)), settings=SETTINGS, progress=False)
    assert [row.point.l1 for row in result.rows] == [0.0, 0.01]
    assert all(0 <= row.auroc <= 1 and row.low <= row.difference for row in result.rows)
    assert result.chosen is not None
    assert set(LOCALIZATION) <= set(result.rows[0].values)


@pytest.mark.slow
def test_a_training_that_diverges_is_left_out(
    manifest: Manifest, create_recipe: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trial.train

    def diverge(recipe: Recipe, *arguments: Any, **options: Any) -> Any:
        if recipe.penalty.l1 >= least:
            raise DivergenceError("Expected the training loss to be finite, but got nan.")
        return original(recipe, *arguments, **options)

    monkeypatch.setattr(trial, "train", diverge)
    least = 1.0
    result = search(create_recipe(manifest), tmp_path, space=Space(l1=(10.0,)), settings=SETTINGS, progress=False)
    assert [row.point.l1 for row in result.rows] == [0.0]
    assert [failure.point.l1 for failure in result.failures] == [10.0]
    assert "finite" in result.to_dict()["failures"][0]["reason"]
    least = 0.0
    with pytest.raises(RunError, match=r"a dense model to compare with, but none could be trained: .* finite"):
        search(create_recipe(manifest), tmp_path, space=Space(l1=(10.0,)), settings=SETTINGS, progress=False)


def test_what_cannot_be_searched_is_refused(manifest: Manifest, create_recipe: Create, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a black box, which has no maps"):
        search(create_recipe(manifest).twin(), tmp_path, progress=False)
    with pytest.raises(UnsupportedModelError, match="a stride of the network, but got 5"):
        search(create_recipe(manifest), tmp_path, space=Space(at=((5,),)), progress=False)
    with hold(tmp_path, LOCK), pytest.raises(RunError, match=r"process \d+ on .* is writing there"):
        search(create_recipe(manifest), tmp_path, progress=False)
    assert not list(tmp_path.glob("trials/*"))


@pytest.mark.slow
def test_a_damaged_record_is_named(found: tuple[SearchResult, Path], manifest: Manifest, create_recipe: Create) -> None:
    result, folder = found
    record = folder / "trials" / result.rows[0].point.name / "measured.json"
    whole = record.read_text()
    record.write_text("{")
    try:
        with pytest.raises(RunError, match=r"measured\.json to hold what a search measured, but it is damaged"):
            search(create_recipe(manifest), folder, space=SPACE, settings=SETTINGS, progress=False)
    finally:
        record.write_text(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"margin": 0.0}, {"margin": 1.0}, {"sparsity": "entropy"}, {"trials": 0}, {"located": 1}, {"fills": ()},
        {"fills": ("snow",)}, {"batch_size": 0}, {"seed": -1}, {"jobs": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="settings of the search to be in range"):
        SearchSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l1": (-1e-9,)}, "the strengths `l1` to be finite and >= 0"),
        ({"l2": (float("nan"),)}, "the strengths `l2` to be finite and >= 0"),
        ({"l1": (0.1, 0.1)}, "each value of `l1` once"),
        ({"at": ((16,), (16,))}, "each value of `at` once"),
    ],
)
def test_spaces_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Space(**changes)


def test_an_empty_space_is_that_of_the_recipe(manifest: Manifest, create_recipe: Create) -> None:
    recipe = create_recipe(manifest, model={"backbone": "timm:test_vit", "map_stride": 8, "at": [16]})
    space = Space().complete(recipe)
    assert space == Space(STRENGTHS, (0.0,), ((16,),), (8,), ("timm:test_vit",))
    assert Space().complete(create_recipe(manifest, penalty={"size_free": True})).l1[-1] == 1.0


def test_a_grid_has_each_value_with_each_and_no_point_twice() -> None:
    grid = Space((0.0, 0.1), (0.0, 0.2), ((), (16,)), (None,), ("b",)).list_grid()
    assert len(grid) == len({point.name for point in grid}) == 8
    assert [point.is_dense for point in grid] == [True, True] + [False] * 6
    assert grid[2] == Point(0.0, 0.2, Form((), None, "b"))
    assert grid[3].name == "b_at-16_l1-0_l2-0.2"


def row(l1: float, *, gini: float, passed: bool = True, auroc: float = 0.9) -> TrialRow:
    point = Point(l1, 0.0, FORM)
    return TrialRow(point, (32, 32), (2, 2), auroc, -0.01, -0.015, passed, {"gini": gini}, 1.0, Path("model"))


def result(*rows: TrialRow) -> SearchResult:
    return SearchResult(rows, rows[0], 0.02, "gini", 100, 10, (), None, {})


def test_the_rule_takes_the_sparsest_that_keeps_up() -> None:
    rows = (row(0, gini=0.3), row(1, gini=0.5), row(2, gini=0.7, passed=False), row(3, gini=float("nan")))
    assert choose(rows, "gini") is rows[1]
    assert str(result(*rows)).startswith("l1 1: the sparsest maps (sparseness 0.500, dense 0.300)")
    tie = row(4, gini=0.5, auroc=0.91)
    assert choose((*rows, tie), "gini") is tie
    assert choose(rows[2:], "gini") is None


def test_a_penalty_that_makes_nothing_sparser_is_not_taken() -> None:
    found = result(row(0, gini=0.6), row(1, gini=0.5))
    assert found.chosen is found.reference
    assert "none has sparser maps (sparseness 0.600). Stay without penalty." in str(found)


def test_without_a_defined_auroc_nothing_is_chosen() -> None:
    found = result(row(0, gini=0.6, passed=False, auroc=float("nan")))
    assert found.chosen is None
    assert "Nothing can be chosen: the AUROC is undefined" in str(found)
    assert found.to_dict()["rows"][0]["auroc"] is None
    assert found.front == ()


def test_the_front_leaves_out_what_is_beaten_or_undefined_and_can_be_drawn() -> None:
    rows = (
        row(0, gini=0.3, auroc=0.9), row(1, gini=0.4, auroc=0.92), row(2, gini=0.6, auroc=0.8),
        row(3, gini=0.5, auroc=0.8), row(4, gini=float("nan"), auroc=0.99),
    )  # fmt: skip
    found = result(*rows)
    assert found.front == (rows[1], rows[2])
    assert found.table()["on_front"].tolist() == [False, True, True, False, False]
    drawing = to_vector(pareto_figure(found))
    assert drawing == to_vector(pareto_figure(found))
    assert b"Sparseness of the maps" in drawing
    assert b"chosen" in drawing
    assert to_vector(pareto_figure(result(row(0, gini=float("nan"), passed=False))))


@pytest.mark.slow
def test_the_command_searches_strengths_and_says_what_the_rule_chooses(
    manifest: Manifest, create_recipe: Create, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(create_recipe(manifest).to_dict()))
    options = ["--config", str(tmp_path / "recipe.yaml"), "--l1", "0.01", "--located", "4", "--margin", "0.9"]
    assert main(["sweep", *options, "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    chosen = json.loads((tmp_path / "out" / "sweep.json").read_text())["chosen"]
    assert ("the sparsest maps" if "l1-0.01" in chosen else "Stay without penalty") in printed
    assert (tmp_path / "out" / "model" / "config.json").is_file()
