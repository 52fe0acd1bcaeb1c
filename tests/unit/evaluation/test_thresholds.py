from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import read_config, save, update
from softcam.bundle.card import write_card
from softcam.data import Manifest, read_manifest
from softcam.errors import RunError
from softcam.evaluation import CalibrationSettings, EvaluationSettings, calibrate, evaluate
from softcam.evaluation.labels import choose_explained
from softcam.evaluation.thresholds import choose_thresholds
from softcam.imaging import Preprocessing
from softcam.metrics import ThresholdRule
from softcam.nn import convert
from softcam.predict import Predictor

LABELS = ("edema", "mass", "rare")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Forty images of two labels; the third no validation image has."""
    folder, draw, rows = tmp_path_factory.mktemp("labels"), np.random.default_rng(0), []
    for index in range(40):
        Image.fromarray(draw.integers(0, 90 + 4 * index, (40, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        split = "val" if index % 2 else "test"
        rows.append((f"{index}.png", int(index > 18), int(index % 3 == 0), int(index == 0), split))
    pd.DataFrame(rows, columns=["image", *LABELS, "split"]).to_csv(folder / "manifest.csv", index=False)
    return read_manifest(folder / "manifest.csv", classes=LABELS)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    black_box = create_black_box("timm:test_resnet", num_classes=3, weights="none").eval()
    model = convert(black_box, multi_label=True)
    record = Preprocessing(size=32).to_dict()
    return save(model, tmp_path / "model", classes=LABELS, preprocessing=record, thresholds={"rare": 0.25})


def test_each_label_gets_the_threshold_of_the_rule(bundle: Path, manifest: Manifest) -> None:
    settings = CalibrationSettings(thresholds=ThresholdRule("sensitivity", 0.8), resamples=50)
    result = calibrate(bundle, manifest, settings=settings)
    update(bundle, result.config)
    config = read_config(bundle)
    assert config.threshold_rule == {"rule": "sensitivity=0.8", "split": "val", "n": 20}
    assert "sensitivity=0.8, on 20 images of val" in write_card(config)
    assert config.uncalibrated().thresholds["rare"] == 0.25
    assert any(note.startswith("rare: its threshold stays") for note in result.metrics["notes"])
    part = manifest.subset("val")
    flags = np.asarray(part.targets)
    decided = [prediction.predicted or "" for prediction in Predictor(bundle, backend="torch")(part.paths)]
    for index, name in enumerate(LABELS[:2]):
        found = np.array([name in labels.split(";") for labels in decided])
        assert found[flags[:, index] == 1].mean() >= 0.8


def test_without_a_rule_no_decision_changes(bundle: Path, manifest: Manifest) -> None:
    result = calibrate(bundle, manifest, settings=CalibrationSettings(resamples=50))
    assert result.config.threshold_rule is None
    assert result.metrics["thresholds"]["raw"] == {"rare": 0.25}


def test_classes_that_exclude_each_other_need_none(bundle: Path) -> None:
    config = replace(read_config(bundle), task="multiclass")
    with pytest.raises(RunError, match="two classes or of independent labels"):
        choose_thresholds(config, np.zeros((4, 3)), np.arange(4) % 3, ThresholdRule(), split="val")
    nothing = np.array([[9.0, 0, 0], [0.0, 0, 0]]), np.array([[0, 0, 1], [1, 1, 0]])
    with pytest.raises(RunError, match="edema: Expected a score with a specificity of at least"):
        choose_thresholds(read_config(bundle), *nothing, ThresholdRule("specificity", 0.9), split="val")


def test_what_is_explained_is_what_is_reported() -> None:
    probabilities = np.array([[0.8, 0.2, 0.1], [0.8, 0.05, 0.01], [0.95, 0.9, 0.1], [0.1, 0.2, 0.3]])
    assert choose_explained(probabilities, (0.9, 0.1, 0.5)).tolist() == [1, 0, 0, 1]
    assert choose_explained(probabilities, (0.5, 0.5, 0.5)).tolist() == [0, 0, 0, 2]
    assert choose_explained(probabilities, None).tolist() == [0, 0, 0, 2]
    assert choose_explained(probabilities[:, :2], 0.15).tolist() == [1, 0, 1, 1]


def test_maps_of_an_evaluation_follow_the_decision(tmp_path: Path, bundle: Path, manifest: Manifest) -> None:
    """The most probable label never reaches its threshold, so that another one is reported and explained."""
    config = read_config(bundle)
    part = manifest.subset("test")
    predictions = list(Predictor(bundle, backend="torch")(part.paths))
    likeliest = LABELS[int(np.mean([prediction.logits for prediction in predictions], axis=0).argmax())]
    thresholds = {name: 1.0 if name == likeliest else 0.0 for name in LABELS}
    update(bundle, replace(config, thresholds=thresholds))
    for prediction in Predictor(bundle, backend="torch")(part.paths[:4]):
        assert likeliest not in (prediction.predicted or "").split(";")
        shown, rival = prediction.contrast
        assert (prediction.classes[shown] in (prediction.predicted or "").split(";"), rival) == (True, None)
    settings = EvaluationSettings(
        methods=("evidence",), measures=("complexity",), explained=2, located=0, right=1, wrong=2, resamples=50,
        gallery_methods=(), batch_size=8,
    )  # fmt: skip
    result = evaluate(bundle, manifest, settings=settings)
    assert result.gallery
    for case in result.gallery:
        assert case.predicted != likeliest
        assert np.array_equal(case.margin, case.maps[case.classes.index(case.predicted)])
