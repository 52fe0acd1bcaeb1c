from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from softcam.evaluation.measures import choose_subject, follow_curves, list_metrics, measure_maps
from softcam.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(points=(0, 1, 2, 4), fills=("mean",))


class Corners(nn.Module):
    """Logit 1 counts the four 2x2 patches of a 4x4 image that are bright, upper left twice; logit 0 is 0."""

    def forward(self, images: Tensor) -> Tensor:
        patches = nn.functional.avg_pool2d(images, 2)[:, 0].flatten(1)
        logit = patches @ torch.tensor([2.0, 1.0, 1.0, 1.0])
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


IMAGES = torch.ones(2, 1, 4, 4)
# Cells in the order of the patches: the first map finds the most important patch first, the second last.
MAPS = torch.tensor([[[4.0, 3.0], [2.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])


def test_the_subject_is_the_most_probable_class() -> None:
    subject = choose_subject(Corners(), torch.cat([IMAGES, -IMAGES]), ("mean",))
    assert subject.target.tolist() == [1, 1, 0, 0]
    expected = torch.tensor([5.0, 5.0, 5.0, 5.0]).sigmoid()
    torch.testing.assert_close(subject.before, expected)
    torch.testing.assert_close(subject.filled["mean"], torch.full((4,), 0.5))


def test_curves_by_hand() -> None:
    subject = choose_subject(Corners(), IMAGES, ("mean",))
    removed, shown = follow_curves(subject, MAPS, patch=2, points=SETTINGS.points, fill="mean")
    left = torch.tensor([[5.0, 3.0, 2.0, 0.0], [5.0, 4.0, 3.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(removed, left.sigmoid(), rtol=1e-6, atol=1e-6)
    gained = torch.tensor([[0.0, 2.0, 3.0, 5.0], [0.0, 1.0, 2.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(shown, gained.sigmoid(), rtol=1e-6, atol=1e-6)


def test_measures_by_hand() -> None:
    subject = choose_subject(Corners(), IMAGES, ("mean",))
    values = measure_maps(subject, MAPS, patch=2, settings=SETTINGS).values
    heights = torch.tensor([5.0, 3.0, 2.0, 0.0], dtype=torch.float64).sigmoid()
    area = ((heights[0] + heights[1]) / 2 + (heights[1] + heights[2]) / 2 + (heights[2] + heights[3])) / 4
    torch.testing.assert_close(values["deletion_area_mean"][0], area, rtol=1e-6, atol=1e-6)
    assert values["deletion_area_mean"][0] < values["deletion_area_mean"][1]
    assert values["insertion_area_mean"][0] > values["insertion_area_mean"][1]
    torch.testing.assert_close(values["relative_drop_mean"][0], heights[3] / heights[0], rtol=1e-6, atol=1e-6)


def test_every_metric_has_a_value_and_a_direction() -> None:
    subject = choose_subject(Corners(), IMAGES, ("mean", "blur"))
    settings = EvaluationSettings(points=(0, 1), fills=("mean", "blur"))
    measured = measure_maps(subject, MAPS, patch=2, settings=settings)
    assert set(measured.values) == set(list_metrics(("mean", "blur")))
    assert set(measured.curves) == {(c, f) for c in ("deletion", "insertion") for f in ("mean", "blur")}
    assert not torch.equal(measured.curves["deletion", "mean"], measured.curves["deletion", "blur"])


def test_directions() -> None:
    assert list_metrics(("blur",)) == {
        "deletion_area_blur": "lower",
        "insertion_area_blur": "higher",
        "relative_drop_blur": "lower",
        "gini": "higher",
        "entropy": "lower",
        "near_zero_share": "higher",
        "components": "lower",
    }


def test_localisation_is_measured_where_findings_are_known() -> None:
    truth = torch.zeros(2, 4, 4, dtype=torch.bool)
    truth[0, :2, :2] = True
    subject = replace(choose_subject(Corners(), IMAGES, ("mean",)), truth=truth)
    measured = measure_maps(subject, MAPS, patch=2, settings=SETTINGS).values
    assert set(measured) == set(list_metrics(("mean",), located=True))
    assert measured["pointing_game"][0] == 1
    assert measured["pixel_auroc"][0] > 0.9
    assert measured["pointing_game"][1].isnan()
    (part,) = measure_maps(subject.take(torch.tensor([True, False])), MAPS[:1], patch=2, settings=SETTINGS).values[
        "activation_precision"
    ]
    assert part == measured["activation_precision"][0]


def test_part_of_a_subject() -> None:
    subject = choose_subject(Corners(), torch.cat([IMAGES, -IMAGES]), ("mean",))
    part = subject.take(torch.tensor([False, True, True, False]))
    assert part.target.tolist() == [1, 0]
    assert len(part.images) == len(part.before) == len(part.filled["mean"]) == 2


def test_more_points_than_patches() -> None:
    subject = choose_subject(Corners(), IMAGES, ("mean",))
    with pytest.raises(ValueError, match="at most the 4 patches of side 2, but got 5"):
        follow_curves(subject, MAPS, patch=2, points=(0, 5), fill="mean")
