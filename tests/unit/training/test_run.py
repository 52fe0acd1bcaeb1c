from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from softcam import bundle
from softcam.data import Manifest, read_manifest
from softcam.errors import RecipeError, RunError
from softcam.nn import SoftCAM
from softcam.training import Learner, Recipe, TrainingRun, train

STAGES = [{"epochs": 2, "trunk": "blocks.1", "views": 2}, {"epochs": 2}]


def build(values: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe.from_dict({**values, **changes})


def run(values: dict[str, Any], out: Path, **changes: Any) -> TrainingRun:
    return train(build(values, **changes), out, progress=False)


def read_table(run: TrainingRun) -> list[dict[str, str]]:
    with (run.path / "metrics.csv").open(encoding="utf-8") as stream:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(stream)]


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same(ours: TrainingRun, theirs: TrainingRun) -> None:
    assert read_table(ours) == read_table(theirs)
    other = weights(theirs)
    assert all(torch.equal(value, other[name]) for name, value in weights(ours).items())
    assert bundle.read_config(ours.model_path).fingerprint == bundle.read_config(theirs.model_path).fingerprint


def test_training_learns_and_leaves_a_whole_run(values: dict[str, Any], tmp_path: Path, manifest: Manifest) -> None:
    state = torch.get_rng_state()
    done = run(values, tmp_path / "run", stages=[{"epochs": 6}], loss={"class_weights": "balanced"})
    assert torch.equal(torch.get_rng_state(), state)
    rows = read_table(done)
    assert len(rows) == 6
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])
    assert done.metrics["val_auroc"] > 0.9
    names = {path.name for path in done.path.iterdir()}
    assert names == {"checkpoints", "metrics.csv", "model", "recipe.yaml", "run.json", "tensorboard"}
    assert {path.name for path in (done.path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    record = json.loads((done.path / "run.json").read_text(encoding="utf-8"))
    assert record["complete"] is True
    assert record["metrics"] == done.metrics

    config = bundle.read_config(done.model_path)
    assert config.classes == ("dark", "spot")
    assert config.data_digest == record["data_digest"] == manifest.digest()
    assert set(config.thresholds) == {"spot"}
    assert config.penalty == {"l1": 0.0, "l2": 0.0, "size_free": 0.0}
    assert config.preprocessing is not None
    assert config.preprocessing["size"] == 64
    assert config.architecture == {"name": "timm:test_efficientnet", "arguments": {}}
    model = bundle.load(done.model_path)
    with torch.inference_mode():
        model.evidence(torch.rand(2, 3, 64, 64)).check()


def test_the_bundle_holds_the_best_epoch(values: dict[str, Any], tmp_path: Path) -> None:
    done = run(values, tmp_path / "run", stages=[{"epochs": 3}])
    rows = read_table(done)
    scores = [(-float(row["val_auroc"]), float(row["val_loss"])) for row in rows]
    best = scores.index(min(scores))
    assert done.metrics["best_epoch"] == best + 1
    assert done.metrics["val_loss"] == float(rows[best]["val_loss"])
    checkpoint = torch.load(done.path / "checkpoints" / "best.ckpt", weights_only=True, map_location="cpu")
    state = checkpoint["state_dict"]
    stored = bundle.load(done.model_path).state_dict()
    assert all(torch.equal(stored[name], state[f"model.{name}"]) for name in stored)


def test_the_penalty_makes_maps_smaller(values: dict[str, Any], tmp_path: Path) -> None:
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    sizes = []
    for strength in (0.0, 1.0):
        done = run(values, tmp_path / str(strength), penalty={"l1": strength})
        with torch.inference_mode():
            sizes.append(float(bundle.load(done.model_path).evidence(images).maps.abs().mean()))
        assert (float(read_table(done)[0]["train_penalty"]) > 0) is (strength > 0)
    assert sizes[1] < 0.7 * sizes[0]


def test_twins_without_penalty_train_alike(values: dict[str, Any], tmp_path: Path) -> None:
    ours = run(values, tmp_path / "ours", stages=[{"epochs": 1}])
    theirs = run(values, tmp_path / "theirs", stages=[{"epochs": 1}], model={**values["model"], "kind": "black_box"})
    assert float(read_table(ours)[0]["train_loss"]) == pytest.approx(
        float(read_table(theirs)[0]["train_loss"]), rel=1e-3
    )
    config = bundle.read_config(theirs.model_path)
    assert (config.kind, config.penalty) == ("black_box", None)
    assert not isinstance(bundle.load_black_box(theirs.model_path), SoftCAM)


@pytest.mark.parametrize(
    ("changes", "stop_at"),
    [
        ({"stages": STAGES, "penalty": {"l1": 0.001}}, 1),
        ({"stages": STAGES, "averaging": 0.5, "optimizer": {"name": "sgd", "lr": 0.01}}, 2),
        ({"stages": [{"epochs": 3}], "early_stopping": {"patience": 3}, "data": {"num_workers": 1}}, 1),
        ({"stages": STAGES, "data": {"sampling": "balanced"}, "loss": {"focus": 2.0}}, 2),
    ],
    ids=["cached", "averaged", "workers", "balanced"],
)
@pytest.mark.slow
def test_an_interrupted_run_ends_like_one_that_went_through(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], stop_at: int
) -> None:
    data = {**values["data"], "augmentation": {"hflip": True}, **changes.get("data", {})}
    dropout = {**values["model"], "arguments": {"drop_rate": 0.3}}
    changes = {**changes, "data": data, "model": dropout}
    whole = run(values, tmp_path / "whole", **changes)
    original = Learner.training_step

    def interrupt(self: Learner, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == stop_at and batch_idx == 1:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(values, tmp_path / "cut", **changes)
    assert not (tmp_path / "cut" / "run.json").exists()
    assert not list((tmp_path / "cut").rglob("*.partial*"))
    epochs: list[int] = []

    def note(self: Learner, batch: Any, batch_idx: int) -> torch.Tensor:
        epochs.append(self.current_epoch)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Learner, "training_step", note)
    again = run(values, tmp_path / "cut", **changes)
    assert min(epochs) == stop_at
    assert_same(again, whole)


def test_a_run_is_the_same_twice_and_differs_by_seed(values: dict[str, Any], tmp_path: Path) -> None:
    first, second = run(values, tmp_path / "a"), run(values, tmp_path / "b")
    assert_same(first, second)
    assert read_table(run(values, tmp_path / "c", seed=1)) != read_table(first)


def test_a_finished_run_returns_at_once(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(values, tmp_path / "run")
    monkeypatch.setattr("softcam.training.run.load_manifest", lambda *_: pytest.fail("work was begun"))
    assert run(values, tmp_path / "run") == first


def test_a_run_that_only_lacks_its_end_is_finished_without_training(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(values, tmp_path / "run")
    (first.path / "run.json").unlink()
    monkeypatch.setattr(Learner, "training_step", lambda *_: pytest.fail("it was trained again"))
    assert run(values, tmp_path / "run").metrics == first.metrics


def test_another_recipe_in_the_same_folder_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    run(values, tmp_path / "run")
    with pytest.raises(RunError, match=r"of the same recipe, but seed, optimizer differ"):
        run(values, tmp_path / "run", seed=1, optimizer={"lr": 0.5})


def test_a_recipe_that_cannot_be_read_any_more_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("sead: 1", encoding="utf-8")
    with pytest.raises(RunError, match="to hold a run of this version"):
        run(values, tmp_path)


def test_other_data_are_refused(values: dict[str, Any], tmp_path: Path, manifest: Manifest) -> None:
    done = run(values, tmp_path / "run")
    table = manifest.table.assign(label=manifest.table["label"].tolist()[::-1])
    other = Manifest(table, manifest.root, manifest.classes, manifest.task)
    assert train(build(values), done.path, manifest=manifest, progress=False) == done
    with pytest.raises(RunError, match=r"the data that the run in .* was made from"):
        train(build(values), done.path, manifest=other, progress=False)
    (done.path / "run.json").unlink()
    with pytest.raises(RunError, match="images or labels differ"):
        train(build(values), done.path, manifest=other, progress=False)


def test_early_stopping_ends_the_run(values: dict[str, Any], tmp_path: Path) -> None:
    settings = {"early_stopping": {"patience": 1}, "optimizer": {"lr": 1e-12}, "stages": [{"epochs": 9}]}
    done = run(values, tmp_path / "run", **settings)
    assert len(read_table(done)) < 9
    (done.path / "run.json").unlink()
    assert len(read_table(run(values, tmp_path / "run", **settings))) < 9


def test_a_loss_that_is_not_finite_fails_loudly(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="training loss to be finite"):
        run(values, tmp_path / "run", optimizer={"name": "sgd", "lr": 1e30}, stages=[{"epochs": 3}])
    assert not (tmp_path / "run" / "model").exists()


def test_wrong_preprocessing_and_trunk_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="preprocessing"):
        run({**values, "data": {**values["data"], "preprocessing": {"sise": 1}}}, tmp_path / "a")
    with pytest.raises(RunError, match=r"stages\.trunk"):
        run(values, tmp_path / "b", stages=[{"epochs": 1, "trunk": "blocks.99"}])


def test_several_labels_per_image(values: dict[str, Any], tmp_path: Path, manifest: Manifest) -> None:
    spot = (manifest.table["label"] == "spot").astype(int)
    table = manifest.table.drop(columns="label").assign(spot=spot, dark=1 - spot)
    path = manifest.root / "labels.csv"
    table.to_csv(path, index=False)
    several = read_manifest(path, classes=("spot", "dark"))
    done = train(
        build(values, loss={"class_weights": "balanced", "label_smoothing": 0.1}),
        tmp_path / "run",
        manifest=several,
        progress=False,
    )
    config = bundle.read_config(done.model_path)
    assert config.task == "multilabel"
    assert set(config.thresholds) == {"spot", "dark"}
    assert config.threshold_rule == {"rule": "youden", "split": "val", "n": len(several.subset("val"))}
    assert bundle.load(done.model_path).multi_label


def test_a_single_finding_is_one_logit(values: dict[str, Any], manifest: Manifest, tmp_path: Path) -> None:
    table = manifest.table.assign(spot=(manifest.table["label"] == "spot").astype(int)).drop(columns="label")
    table.to_csv(manifest.root / "finding.csv", index=False)
    single = read_manifest(manifest.root / "finding.csv", classes=("spot",))
    recipe = build(values, stages=[{"epochs": 4}], loss={"class_weights": "balanced"})
    done = train(recipe, tmp_path / "run", manifest=single, progress=False)
    assert done.metrics["val_auroc"] > 0.9
    model = bundle.load(done.model_path)
    assert (model.num_classes, model.multi_label) == (1, True)
    assert set(bundle.read_config(done.model_path).thresholds) == {"spot"}


def test_three_classes_have_no_threshold(values: dict[str, Any], tmp_path: Path, manifest: Manifest) -> None:
    table = manifest.table.copy()
    table.loc[table.index % 5 == 0, "label"] = "other"
    path = manifest.root / "three.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    done = train(build(values), tmp_path / "run", manifest=read_manifest(path), progress=False)
    assert bundle.read_config(done.model_path).thresholds == {}


def test_progress_stays_off_stdout(values: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(build(values, stages=STAGES), tmp_path / "run")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Epoch" in captured.err
