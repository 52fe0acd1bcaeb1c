from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from softcam.bundle import Calibration, read_config, update
from softcam.evaluation import evaluate, write_evaluation
from softcam.evaluation.models import load_contestants
from softcam.evaluation.predictions import Predictions, predict_images, tabulate_predictions
from softcam.evaluation.settings import EvaluationSettings
from softcam.evaluation.uncertainty import POINTS, describe_selection, describe_sets, describe_uncertainty
from softcam.metrics import scale_threshold

RANDOM: dict[str, Any] = {"resamples": 100, "seed": 0}
CALIBRATION = Calibration(2.0, 19, "val", "0" * 64, method="lac", alpha=0.1, quantile=0.7)


@pytest.fixture(scope="module")
def calibrated(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = read_config(world.softcam)
    record = replace(CALIBRATION, thresholds=dict(config.thresholds))
    moved = {name: scale_threshold(value, 2.0) for name, value in config.thresholds.items()}
    out = tmp_path_factory.mktemp("calibrated") / "model"
    return update(world.softcam, replace(config, thresholds=moved, calibration=record), out=out)


def test_sets_by_hand() -> None:
    sets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], bool)
    targets = np.array([0, 1, 0, 1])
    found = describe_sets(sets, targets, CALIBRATION, classes=("a", "b"), groups=None, random=RANDOM)
    assert found["coverage"]["value"] == 0.5
    assert found["coverage"]["low"] < 0.5 < found["coverage"]["high"]
    assert found["target"] == 0.9
    assert {name: value["value"] for name, value in found["class_coverage"].items()} == {"a": 0.5, "b": 0.5}
    assert found["size"] == {"mean": 1.0, "empty": 0.25, "single": 0.5, "several": 0.25, "n": 4}
    assert found["expected"][0] <= 0.9 <= found["expected"][1]
    alone = describe_sets(sets[:1], targets[:1], CALIBRATION, classes=("a", "b"), groups=None, random=RANDOM)
    assert set(alone["class_coverage"]) == {"a"}
    few = replace(CALIBRATION, n=3)
    assert describe_sets(sets, targets, few, classes=("a", "b"), groups=None, random=RANDOM)["expected"] is None


def test_selection_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]])
    found = describe_selection(probabilities, np.array([0, 1, 1, 1]), 0.5, groups=None, random=RANDOM)
    # In the order of confidence: right, right, wrong, right.
    assert found["coverage"] == [0.25, 0.5, 0.75, 1.0]
    assert found["risk"] == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert found["area"]["value"] == pytest.approx((1 / 3 + 1 / 4) / 4)
    several = describe_selection(probabilities, np.eye(4, 2, dtype=int), (0.5, 0.5), groups=None, random=RANDOM)
    assert several["risk"][-1] == pytest.approx(0.5)
    # Few points of many images, the ends among them.
    many = np.linspace(0, 1, 3000)
    long = describe_selection(np.stack([1 - many, many], 1), np.zeros(3000, int), None, groups=None, random=RANDOM)
    assert len(long["risk"]) == POINTS
    assert long["coverage"][-1] == 1.0
    assert long["risk"][-1] == pytest.approx(0.5, abs=1e-3)


def test_without_a_calibration_there_is_a_curve_alone(predictions: Predictions, models: Any) -> None:
    found = describe_uncertainty(predictions, models, EvaluationSettings(resamples=50))
    assert (found["temperature"], found["sets"]) == (None, None)
    assert set(found["selective"]) == {"softcam", "black_box"}
    table = tabulate_predictions(predictions, models, SimpleNamespace(cell=lambda row, _: str(row)))  # type: ignore[arg-type]
    assert "prediction_set" not in table


def test_a_calibrated_model_is_evaluated_by_its_own_probabilities(
    world: Any, calibrated: Path, predictions: Predictions, models: Any
) -> None:
    new = load_contestants(calibrated, world.black_box, world.manifest, device="cpu")
    part = world.manifest.subset("test")
    found = predict_images(new, part, batch_size=8, tolerance=1e-5)
    raw = np.log(predictions.probabilities)
    expected = torch.from_numpy(raw / 2).softmax(1)
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)
    assert found.black_box is not None
    assert predictions.black_box is not None
    np.testing.assert_array_equal(found.black_box, predictions.black_box)
    assert found.sets is not None
    np.testing.assert_array_equal(found.sets, 1 - found.probabilities <= 0.7)
    old, table = tabulate_predictions(predictions, models, part), tabulate_predictions(found, new, part)
    assert table["predicted"].tolist() == old["predicted"].tolist()
    assert list(table.columns[:4]) == ["image", "label", "predicted", "prediction_set"]
    assert set(table["prediction_set"]) <= {"intact", "defect", "intact;defect", ""}
    # Explanations are of raw logits: their thresholds are those before.
    assert new.threshold("softcam", raw=True) == models.threshold("softcam") == 0.4
    assert new.threshold("softcam") == scale_threshold(0.4, 2.0)


def test_what_is_reported_of_a_calibrated_model(world: Any, calibrated: Path, tmp_path: Path) -> None:
    settings = world.settings(explained=2, right=1, wrong=1, located=0, methods=("evidence", "random"))
    raw = evaluate(world.softcam, world.manifest, black_box_path=world.black_box, settings=settings)
    found = evaluate(calibrated, world.manifest, black_box_path=world.black_box, settings=settings)
    uncertainty = found.metrics["uncertainty"]
    assert uncertainty["temperature"] == 2.0
    assert uncertainty["sets"]["coverage"]["n"] == len(found.predictions)
    for name in ("accuracy", "auroc", "sensitivity", "specificity"):
        assert found.metrics["classification"][name] == raw.metrics["classification"][name]
    assert found.metrics["classification"]["ece"] != raw.metrics["classification"]["ece"]
    assert found.metrics["confusion"] == raw.metrics["confusion"]
    assert found.metrics["black_box"] == raw.metrics["black_box"]
    area = {name: value["area"] for name, value in uncertainty["selective"].items()}
    assert area == {name: value["area"] for name, value in raw.metrics["uncertainty"]["selective"].items()}
    # Maps and the classes that they explain do not know of it.
    columns = ["method", "metric", "value"]
    assert found.benchmark[columns].equals(raw.benchmark[columns])
    assert [case.predicted for case in found.gallery] == [case.predicted for case in raw.gallery]
    assert "prediction_set" in (write_evaluation(found, tmp_path) / "predictions.csv").read_text()
