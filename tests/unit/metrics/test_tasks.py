from __future__ import annotations

import numpy as np
import pytest
import torch

from softcam.metrics.tasks import check_classes, read_task

THREE = [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]


def test_two_classes_keep_the_positive_one() -> None:
    task = read_task([[0.3, 0.7], [0.5, 0.5], [0.6, 0.4]], [1, 0, 1], None)
    assert task.scores.tolist() == [[0.7], [0.5], [0.4]]
    assert task.truth.tolist() == [[True], [False], [True]]
    assert task.decisions.tolist() == [[True], [True], [False]]
    assert task.correct.tolist() == [1.0, 0.0, 0.0]
    assert task.squared_error == pytest.approx([0.09, 0.25, 0.36])
    confidence, right = task.calibration
    assert confidence.tolist() == task.scores.tolist()
    assert right.tolist() == task.truth.tolist()


def test_threshold_moves_the_decision_and_belongs_to_the_positive() -> None:
    decisions = [read_task([[0.3, 0.7]], [1], t).decisions.item() for t in (0.69, 0.7, 0.71)]
    assert decisions == [True, True, False]
    assert read_task([[0.3, 0.7]], [1], [0.71]).decisions.item() is False


def test_exclusive_classes_take_the_largest() -> None:
    task = read_task(torch.tensor(THREE), torch.tensor([0, 1]), None)
    assert task.decisions.tolist() == [[True, False, False], [False, False, True]]
    assert task.truth.tolist() == [[True, False, False], [False, True, False]]
    assert task.correct.tolist() == [1.0, 0.0]
    assert task.squared_error == pytest.approx([(0.25 + 0.09 + 0.04) / 2, (0.01 + 0.64 + 0.49) / 2])
    confidence, right = task.calibration
    assert confidence == pytest.approx(np.array([[0.5], [0.7]]))
    assert right.tolist() == [[True], [False]]


def test_several_labels_are_judged_one_by_one() -> None:
    task = read_task([[0.9, 0.8], [0.4, 0.6]], np.array([[1, 0], [1, 1]]), [0.5, 0.7])
    assert task.decisions.tolist() == [[True, True], [False, False]]
    assert task.correct.tolist() == [0.5, 0.0]
    assert task.squared_error == pytest.approx([(0.01 + 0.64) / 2, (0.36 + 0.16) / 2])
    assert task.calibration[1].tolist() == [[True, False], [True, True]]
    assert not task.exclusive


def test_a_single_logit_is_one_label() -> None:
    task = read_task([[0.9], [0.4], [0.6]], [[1], [1], [0]], None)
    assert task.scores.tolist() == [[0.9], [0.4], [0.6]]
    assert task.decisions.tolist() == [[True], [False], [True]]
    assert task.correct.tolist() == [1.0, 0.0, 0.0]
    assert read_task([[0.4]], [[1]], 0.3).decisions.tolist() == [[True]]
    with pytest.raises(ValueError, match=r"K >= 2, but got \(1, 1\).*or pass \(N, 1\) probabilities and targets"):
        read_task([[0.4]], [1], None)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (0, 2), (1, 2, 2)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `probabilities` to be of shape \(N, K\)"):
        read_task(np.full(shape, 0.5), [0], None)


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_refuses_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `probabilities` to lie in \[0, 1\]"):
        read_task([[bad, 0.5]], [0], None)


def test_rows_sum_to_one_up_to_half_precision() -> None:
    assert read_task([[0.5, 0.509]], [0], None).scores.shape == (1, 1)
    with pytest.raises(ValueError, match=r"a row off by 0\.011"):
        read_task([[0.5, 0.5], [0.5, 0.511]], [0, 1], None)


def test_refuses_a_threshold_for_exclusive_classes() -> None:
    with pytest.raises(ValueError, match="Expected `threshold` to be left out for 3 classes"):
        read_task(THREE, [0, 1], 0.5)


@pytest.mark.parametrize("threshold", [[0.1, 0.2], float("nan")])
def test_refuses_other_thresholds(threshold: object) -> None:
    with pytest.raises(ValueError, match="Expected `threshold` to be one number"):
        read_task([[0.5, 0.5]], [0], threshold)  # type: ignore[arg-type]


def test_refuses_labels_of_another_width() -> None:
    with pytest.raises(ValueError, match=r"Expected `targets` to be of shape \(1, 3\), but got \(1, 2\)"):
        read_task([[0.5, 0.5, 0.5]], [[0, 1]], None)
    with pytest.raises(ValueError, match=r"Expected `targets` to be 0 or 1"):
        read_task([[0.5, 0.5]], [[0, 2]], None)


def test_classes_are_checked() -> None:
    assert check_classes([0, 2], "targets", 3).tolist() == [0, 2]
    for bad in (3, -1, 0.5):
        with pytest.raises(ValueError, match=r"Expected `targets` to be class indices in \[0, 3\)"):
            check_classes([0, bad], "targets", 3)
    with pytest.raises(ValueError, match="Expected `num_classes` to be at least 2, but got 1"):
        check_classes([0], "targets", 1)
    with pytest.raises(ValueError, match=r"Expected `targets` to be of shape \(2,\)"):
        read_task([[0.5, 0.5]] * 2, [0], None)
