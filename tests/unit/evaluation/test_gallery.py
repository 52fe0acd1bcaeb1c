from __future__ import annotations

import numpy as np
import pytest

from softcam.evaluation import EvaluationResult, GalleryCase
from softcam.evaluation.gallery import _draw


def test_cases_hold_what_a_reader_needs(result: EvaluationResult) -> None:
    assert result.gallery
    for case in result.gallery:
        assert (case.kind == "right") is (case.label == case.predicted)
        assert case.pixels.shape == (64, 64, 3)
        assert case.pixels.dtype == np.uint8
        assert case.maps.shape == (2, 2, 2)
        assert case.geometry["original_width"] == 80
        assert set(case.peers) == {"grad_cam"}
        assert case.probabilities.sum() == pytest.approx(1)


def test_margin_averages_to_the_distance_of_the_logits(result: EvaluationResult) -> None:
    for case in result.gallery:
        index = case.classes.index(case.predicted)
        assert float(case.margin.mean()) == pytest.approx(float(case.logits[index] - case.logits[1 - index]), abs=1e-5)


def test_cases_agree_with_the_table_of_predictions(result: EvaluationResult) -> None:
    table = result.predictions.set_index("image")
    for case in result.gallery:
        assert table.loc[case.image_id, "predicted"] == case.predicted
        assert table.loc[case.image_id, "label"] == case.label
        assert table.loc[case.image_id, "prob_defect"] == pytest.approx(float(case.probabilities[1]), abs=1e-5)


def test_right_cases_come_first(result: EvaluationResult) -> None:
    kinds = [case.kind for case in result.gallery]
    assert kinds == sorted(kinds)
    assert max(kinds.count("right"), kinds.count("wrong")) <= 2
    assert all(isinstance(case, GalleryCase) for case in result.gallery)


def test_classes_are_drawn_in_turn() -> None:
    targets = np.array([0] * 20 + [1] * 2)
    drawn = _draw(np.arange(22), targets, 6, seed=0)
    assert targets[drawn].tolist() == [0, 1, 0, 1, 0, 0]
    assert drawn == _draw(np.arange(22), targets, 6, seed=0)
    assert drawn != _draw(np.arange(22), targets, 6, seed=1)


def test_no_candidates() -> None:
    assert _draw(np.array([], dtype=np.int64), np.array([0, 1]), 3, seed=0) == []
