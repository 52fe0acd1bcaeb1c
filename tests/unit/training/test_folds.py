from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from softcam import bundle
from softcam.cli import main
from softcam.data import ImageDataset, Manifest
from softcam.errors import ManifestError, RecipeError, RunError
from softcam.imaging import Preprocessing
from softcam.training import FoldsRun, Learner, Recipe, train, train_folds
from softcam.training.folds import split_folds


def with_patients(manifest: Manifest) -> Manifest:
    """Return the table with two images of a patient each, but for the last, and four test images."""
    table = manifest.table.assign(patient=[f"P{row // 4}" if row < 28 else "" for row in range(len(manifest))])
    table["split"] = ["test" if row < 4 else split for row, split in enumerate(table["split"])]
    return Manifest(table, manifest.root, manifest.classes, manifest.task)


def test_each_image_is_left_out_once_and_patients_stay_together(manifest: Manifest) -> None:
    table = with_patients(manifest)
    tables = split_folds(table, 4, seed=0)
    left_out = [set(one.subset("test").table["image"]) for one in tables]
    usable = set(table.table["image"][table.table["split"] != "test"])
    assert set.union(*left_out) == usable
    assert sum(map(len, left_out)) == len(usable) == 28
    for number, one in enumerate(tables):
        assert set(one.subset("val").table["image"]) == left_out[(number + 1) % 4]
        assert len(one) == 28
        patients = [set(one.subset(split).table["patient"]) - {""} for split in ("train", "val", "test")]
        assert not any(a & b for a, b in ((0, 1), (0, 2), (1, 2)) for a, b in [(patients[a], patients[b])])
        assert set(one.subset("test").targets) == {0, 1}
    again, other = split_folds(table, 4, seed=0), split_folds(table, 4, seed=1)
    assert all(one.table.equals(same.table) for one, same in zip(tables, again, strict=True))
    assert not all(one.table.equals(drawn.table) for one, drawn in zip(tables, other, strict=True))


def test_folds_that_cannot_be_are_refused(manifest: Manifest, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Expected `folds` to be >= 3: one to leave out"):
        train_folds(recipe, tmp_path, folds=2, progress=False)
    few = manifest.table.assign(patient=[f"P{row % 2}" for row in range(len(manifest))])
    with pytest.raises(ManifestError, match="at least 3 patients for 3 folds, but got 2"):
        split_folds(Manifest(few, manifest.root, manifest.classes, manifest.task), 3, seed=0)
    rare = manifest.take(np.array([*range(0, 32, 2), 1]))
    with pytest.raises(ManifestError, match=r"in each of 3 folds, but one lacks \['spot'\]\. Use fewer"):
        split_folds(rare, 3, seed=0)
    assert not list(tmp_path.iterdir())


def test_independent_labels_may_be_rare(manifest: Manifest) -> None:
    table = manifest.table.drop(columns=["label", "split"]).assign(often=1, rare=[1] + 31 * [0])
    tables = split_folds(Manifest(table, manifest.root, ("often", "rare"), "multilabel"), 3, seed=0)
    assert sum(len(one.subset("test")) for one in tables) == 32


@pytest.fixture(scope="module")
def finished(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[FoldsRun, Recipe, Manifest]:
    recipe = Recipe.from_dict(
        {
            "name": "tiny",
            "data": {"source": str(manifest.root / "manifest.csv"), "image_size": 64, "batch_size": 8},
            "model": {"backbone": "timm:test_efficientnet", "weights": "none"},
            "optimizer": {"lr": 0.01},
            "stages": [{"epochs": 2}],
        }
    )
    table = with_patients(manifest)
    run = train_folds(recipe, tmp_path_factory.mktemp("folds"), folds=3, manifest=table, progress=False)
    return run, recipe, table


@pytest.mark.slow
def test_predictions_are_those_of_the_model_that_left_the_image_out(
    finished: tuple[FoldsRun, Recipe, Manifest],
) -> None:
    run, recipe, table = finished
    rows = pd.read_csv(run.path / "predictions.csv")
    assert sorted(rows["image"]) == sorted(table.table["image"][table.table["split"] != "test"])
    for number, one in enumerate(split_folds(table, 3, seed=recipe.seed), start=1):
        ours = rows[rows["fold"] == number]
        held = one.subset("test")
        assert list(ours["image"]) == list(held.table["image"])
        assert list(ours["label"]) == list(held.table["label"])
        path = run.path / f"fold-{number}" / "model"
        preprocessing = Preprocessing.from_dict(dict(bundle.read_config(path).preprocessing or {}))
        images = torch.stack([item[0] for item in (ImageDataset(held, preprocessing)[row] for row in range(len(held)))])
        with torch.no_grad():
            expected = bundle.load(path)(images).softmax(1)
        np.testing.assert_allclose(ours[["prob_dark", "prob_spot"]], expected, atol=1e-5)


@pytest.mark.slow
def test_metrics_are_per_fold_with_mean_and_spread_and_together(finished: tuple[FoldsRun, Recipe, Manifest]) -> None:
    run, _, _ = finished
    rows = pd.read_csv(run.path / "predictions.csv")
    target = rows["label"] == "spot"
    each = [roc_auc_score(target[rows["fold"] == n], rows["prob_spot"][rows["fold"] == n]) for n in (1, 2, 3)]
    assert run.metrics["auroc"] == pytest.approx(tuple(each))
    assert run.mean("auroc") == pytest.approx(np.mean(each))
    assert run.spread("auroc") == pytest.approx(np.std(each, ddof=1))
    assert run.together["auroc"].value == pytest.approx(roc_auc_score(target, rows["prob_spot"]))
    assert run.together["auroc"].low <= run.together["auroc"].value <= run.together["auroc"].high
    folds = pd.read_csv(run.path / "folds.csv")
    assert list(folds["fold"]) == [1, 2, 3]
    assert folds["images"].sum() == len(rows)
    assert folds["auroc"].tolist() == pytest.approx(each)
    record = json.loads((run.path / "run.json").read_text())
    assert record["complete"] is True
    assert record["metrics"]["auroc"]["mean"] == run.mean("auroc")


@pytest.mark.slow
def test_an_interrupted_call_goes_on_and_ends_alike(
    finished: tuple[FoldsRun, Recipe, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe, table = finished
    original, begun = Learner.training_step, []

    def interrupt(self: Learner, batch: Any, batch_idx: int) -> torch.Tensor:
        begun.append(self.current_epoch)
        if len(begun) == 5:  # in the second fold
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_folds(recipe, tmp_path, folds=3, manifest=table, progress=False)
    assert (tmp_path / "fold-1" / "run.json").is_file()
    assert not (tmp_path / "run.json").exists()
    again = train_folds(recipe, tmp_path, folds=3, manifest=table, progress=False)
    assert (again.metrics, again.together) == (run.metrics, run.together)
    assert (tmp_path / "predictions.csv").read_bytes() == (run.path / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_a_finished_call_returns_at_once_and_its_folder_is_kept_apart(
    finished: tuple[FoldsRun, Recipe, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe, table = finished
    monkeypatch.setattr("softcam.training.folds.train", lambda *_, **__: pytest.fail("trained again"))
    assert train_folds(recipe, run.path, folds=3, manifest=table, progress=False) == run
    with pytest.raises(RunError, match="its folds differ"):
        train_folds(recipe, run.path, folds=4, manifest=table, progress=False)
    with pytest.raises(RunError, match="to hold one training, but it holds several"):
        train(recipe, run.path, manifest=table, progress=False)


@pytest.mark.slow
def test_the_command_shows_mean_and_spread(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps({**values, "stages": [{"epochs": 1}]}))
    options = ["--config", str(tmp_path / "recipe.yaml"), "--folds", "3", "--black-box"]
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "spread" in printed
    assert "auroc" in printed
    assert bundle.read_config(tmp_path / "run" / "fold-3" / "model").kind == "black_box"
