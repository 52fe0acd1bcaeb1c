from __future__ import annotations

import numpy as np
import pytest

from softcam.imaging import Geometry
from softcam.predict import Prediction, decide
from softcam.predict.prediction import choose_class

MAPS = np.array([[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -2.0]], [[1.0, 1.0], [-1.0, 1.0]]], np.float32)


def make(predicted: str = "a", *, multi_label: bool = False) -> Prediction:
    return Prediction(
        "x",
        "ok",
        ("a", "b", "c"),
        predicted=predicted,
        maps=MAPS,
        logits=MAPS.mean((1, 2)),
        multi_label=multi_label,
    )


@pytest.mark.parametrize(
    ("probabilities", "thresholds", "expected"),
    [
        ([0.5, 0.5], {}, "intact"),
        ([0.4, 0.6], {}, "defect"),
        ([0.7, 0.3], {"defect": 0.3}, "defect"),
        ([0.7, 0.2999], {"defect": 0.3}, "intact"),
        ([0.2, 0.8], {"defect": 0.9}, "intact"),
        ([0.2, 0.8], {"intact": 0.1}, "defect"),
    ],
)
def test_two_exclusive_classes(probabilities: list[float], thresholds: dict[str, float], expected: str) -> None:
    assert choose_class(np.array(probabilities), ["intact", "defect"], thresholds=thresholds) == expected


def test_decisions() -> None:
    probabilities = np.array([[0.6, 0.4], [0.61, 0.39], [0.2, 0.8]])
    assert decide(probabilities, 0.4).tolist() == [1, 0, 1]
    assert decide(probabilities, None).tolist() == [0, 0, 1]


def test_a_threshold_means_nothing_among_three_exclusive_classes() -> None:
    assert choose_class(np.array([0.2, 0.5, 0.3]), "abc", thresholds={"b": 0.9}) == "b"


@pytest.mark.parametrize(
    ("probabilities", "expected"), [([0.5, 0.2, 0.9], "a;b;c"), ([0.49, 0.19, 0.1], ""), ([0.49, 0.2, 0.1], "b")]
)
def test_independent_classes(probabilities: list[float], expected: str) -> None:
    assert choose_class(np.array(probabilities), "abc", thresholds={"b": 0.2}, multi_label=True) == expected


def test_margin_is_predicted_against_runner_up() -> None:
    prediction = make()
    assert prediction.contrast == (0, 2)
    assert prediction.margin().tolist() == [[3.0, -1.0], [1.0, -1.0]]
    assert prediction.margin().mean() == prediction.logits[0] - prediction.logits[2]


def test_a_class_chosen_by_threshold_is_set_against_the_highest() -> None:
    assert make("c").contrast == (2, 0)
    assert make("c").margin().tolist() == [[-3.0, 1.0], [-1.0, 1.0]]


def test_independent_classes_have_no_rival() -> None:
    prediction = make("", multi_label=True)
    assert prediction.contrast == (0, None)
    assert prediction.margin().tolist() == MAPS[0].tolist()


def test_a_failed_prediction_has_no_margin() -> None:
    failed = Prediction("x", "failed", ("a", "b"), "file is empty")
    assert failed.maps.size == failed.logits.size == 0
    assert np.isnan(failed.sum_error)
    with pytest.raises(ValueError, match="status 'ok', but got a failed one"):
        failed.margin()


def test_regions_lie_in_the_original_and_add_up_to_the_margin() -> None:
    maps = np.array([[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]], np.float32)
    geometry = Geometry(40, 60, 20, 20, scale_x=2.0, scale_y=2.0, offset_x=10.0, offset_y=0.0)
    logits = maps.mean((1, 2))
    prediction = Prediction(
        "a", "ok", ("x", "y"), predicted="y", logits=logits, maps=maps, geometry=geometry, spacing=(0.5, 0.1)
    )
    regions = prediction.regions(threshold=2.0)
    assert [(region.supports, region.box) for region in regions] == [
        (False, (10.0, 0.0, 20.0, 20.0)),
        (True, (30.0, 20.0, 20.0, 20.0)),
    ]
    assert regions.total == prediction.margin().mean(dtype=np.float64) == -0.5
    assert regions[0].millimetres == pytest.approx(400 * 0.05)
    with pytest.raises(ValueError, match="failed one"):
        Prediction("a", "failed", ("x", "y")).regions()
    with pytest.raises(ValueError, match="failed one"):
        Prediction("a", "failed", ("x", "y")).placement  # noqa: B018 - the property raises
