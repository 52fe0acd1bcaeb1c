from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from softcam.evaluation.classification import check_consistency, classify, summarize
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(resamples=200)
TARGETS = np.array([0, 0, 0, 1, 1, 1])
POSITIVE = np.array([0.1, 0.2, 0.6, 0.4, 0.8, 0.9])
OLD = np.array([0.1, 0.5, 0.7, 0.6, 0.3, 0.9])


def predictions(**changes: Any) -> Predictions:
    shares = np.tile([0.25, 0.75, 0.5, 0.5], (6, 1))
    shares[3:] = [1.0, 0.0, 0.9, 0.1]
    values: dict[str, Any] = {
        "rows": np.arange(6),
        "targets": TARGETS,
        "probabilities": np.stack([1 - POSITIVE, POSITIVE], 1),
        "black_box": np.stack([1 - OLD, OLD], 1),
        "sum_error": np.zeros(6),
        "shares": shares,
        "patients": None,
        "failures": (),
    }
    return Predictions(**{**values, **changes})


def models(softcam: float | None = 0.5, black_box: float | None = 0.5, classes: int = 2) -> Any:
    thresholds = {"softcam": softcam, "black_box": black_box}
    return SimpleNamespace(thresholds=thresholds, classes=("a", "b", "c")[:classes], multi_label=False, ordinal=False)


def test_both_models_by_hand() -> None:
    found = classify(predictions(), models(), SETTINGS)
    # SoftCAM: 8 of 9 pairs are ranked right. Black box: .6 beats two, .3 one, .9 three of three.
    assert found["classification"]["auroc"]["value"] == pytest.approx(8 / 9)
    assert found["black_box"]["auroc"]["value"] == pytest.approx(6 / 9)
    assert found["noninferiority"]["difference"] == pytest.approx(2 / 9)
    assert found["noninferiority"]["margin"] == 0.02
    assert found["confusion"] == {"softcam": [[2, 1], [1, 2]], "black_box": [[1, 2], [1, 2]]}
    assert found["roc"]["softcam"]["tpr"][-1] == found["roc"]["softcam"]["fpr"][-1] == 1.0
    assert found["pr"]["softcam"]["recall"][-1] == 1.0
    assert sum(entry["count"] for entry in found["calibration"]["softcam"]) == 6


@pytest.mark.parametrize("label", [0, 1])
def test_a_single_class_leaves_what_needs_two_undefined(label: int) -> None:
    found = classify(predictions(targets=np.full(6, label)), models(), SETTINGS)
    right = int((POSITIVE < 0.5).sum()) if label == 0 else int((POSITIVE >= 0.5).sum())
    assert found["classification"]["accuracy"]["value"] == pytest.approx(right / 6)
    assert np.isnan(found["classification"]["auroc"]["value"])
    assert found["noninferiority"] is None
    assert sum(map(sum, found["confusion"]["softcam"])) == 6


def test_one_patient_leaves_all_intervals_undefined() -> None:
    found = classify(predictions(patients=np.array(["p"] * 6, dtype=object)), models(), SETTINGS)
    for report in (found["classification"], found["black_box"]):
        assert all(np.isnan(entry["low"]) and np.isnan(entry["high"]) for entry in report.values())
    assert found["classification"]["auroc"]["value"] == pytest.approx(8 / 9)
    assert found["noninferiority"] is None


def test_threshold_moves_decisions_and_not_ranking() -> None:
    found = classify(predictions(), models(softcam=0.3), SETTINGS)
    assert found["confusion"]["softcam"] == [[2, 1], [0, 3]]
    assert found["classification"]["sensitivity"]["value"] == 1.0
    assert found["classification"]["auroc"]["value"] == pytest.approx(8 / 9)
    assert found["thresholds"] == {"softcam": 0.3, "black_box": 0.5}


def test_without_a_twin() -> None:
    found = classify(predictions(black_box=None), models(), SETTINGS)
    assert found["black_box"] is None
    assert found["noninferiority"] is None
    assert set(found["roc"]) == {"softcam"}


def test_patients_widen_the_interval() -> None:
    alone = classify(predictions(), models(), SETTINGS)["classification"]["accuracy"]
    patients = np.array(["p", "p", "q", "q", "r", "r"], dtype=object)
    grouped = classify(predictions(patients=patients), models(), SETTINGS)["classification"]["accuracy"]
    assert (grouped["low"], grouped["high"]) != (alone["low"], alone["high"])


def test_three_classes_have_pooled_curves_and_no_test() -> None:
    probabilities = np.full((6, 3), 0.2)
    targets = np.array([0, 1, 2, 0, 1, 2])
    probabilities[np.arange(6), targets] = 0.6
    changed = predictions(targets=targets, probabilities=probabilities, black_box=probabilities)
    found = classify(changed, models(None, None, 3), SETTINGS)
    assert found["noninferiority"] is None
    assert found["confusion"]["softcam"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert found["roc"]["softcam"] == {"fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0]}


def test_consistency_of_two_classes() -> None:
    found = check_consistency(predictions(), num_classes=2, settings=SETTINGS)
    assert {name: entry["value"] for name, entry in found.items()} == {
        "positive_share": 1.0,
        "negative_share": 0.75,
        "margin_positive_share": 0.9,
        "margin_negative_share": 0.5,
    }
    assert {entry["n"] for entry in found.values()} == {3}


def test_consistency_of_more_classes_is_that_of_the_own_label() -> None:
    found = check_consistency(predictions(), num_classes=3, settings=SETTINGS)
    assert {name: entry["n"] for name, entry in found.items()} == {"positive_share": 6, "margin_positive_share": 6}
    assert found["positive_share"]["value"] == pytest.approx(0.625)


def test_consistency_without_healthy_images_is_undefined() -> None:
    part = predictions(targets=np.ones(6, dtype=np.int64))
    found = check_consistency(part, num_classes=2, settings=SETTINGS)["negative_share"]
    assert found["n"] == 0
    assert np.isnan(found["value"])


def test_seed_and_resamples_reach_the_bootstrap() -> None:
    values = np.random.default_rng(0).normal(size=20)
    first = summarize(values, None, SETTINGS)
    assert first == summarize(values, None, SETTINGS)
    assert first.low != summarize(values, None, replace(SETTINGS, seed=1)).low
    assert first.low != summarize(values, None, replace(SETTINGS, resamples=300)).low
