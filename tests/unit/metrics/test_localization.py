from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from softcam.metrics.localization import (
    activation_precision,
    activation_sensitivity,
    iou,
    localization_precision,
    pixel_auroc,
    pixel_average_precision,
    pointing_game,
    rank_accuracy,
    topk_precision,
)

METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "topk_precision": partial(topk_precision, k=2, patch=2),
    "localization_precision": partial(localization_precision, patch=2),
    "activation_precision": activation_precision,
    "activation_sensitivity": activation_sensitivity,
    "rank_accuracy": rank_accuracy,
    "pointing_game": pointing_game,
    "iou": partial(iou, threshold=0.0),
    "pixel_auroc": pixel_auroc,
    "pixel_average_precision": pixel_average_precision,
}
GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randn(6, 8, 9, dtype=torch.float64, generator=GENERATOR)
MASKS = torch.rand(6, 8, 9, generator=GENERATOR) < 0.1
# Four patches of side 2 with means 2, -1, 1, 0.5 and maxima 2, 9, 1, 0.5; ground truth in patches 1 and 2.
QUARTERS = torch.tensor(
    [[[2.0, 2.0, 9.0, -5.0], [2.0, 2.0, -3.0, -5.0], [1.0, 1.0, 0.5, 0.5], [1.0, 1.0, 0.5, 0.5]]], dtype=torch.float64
)
TRUTH = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]])


def slow_topk(maps: Tensor, masks: Tensor, k: int, patch: int, score: str) -> list[list[float]]:
    curves = []
    for image, truth in zip(maps, masks, strict=True):
        scored = []
        for top in range(0, image.shape[0], patch):
            for left in range(0, image.shape[1], patch):
                window = slice(top, top + patch), slice(left, left + patch)
                value = image[window].mean() if score == "mean" else image[window].max()
                scored.append((float(value), bool(truth[window].any())))
        best = [hit for value, hit in sorted(scored, key=lambda pair: -pair[0]) if value > 0]
        defined = best and bool(truth.any())
        curves.append([sum(best[:j]) / len(best[:j]) if defined else math.nan for j in range(1, k + 1)])
    return curves


def slow_rank(image: Tensor, truth: Tensor) -> float:
    pixels = sorted(zip(image.flatten().tolist(), truth.flatten().tolist(), strict=True), key=lambda pair: -pair[0])
    size = int(truth.sum())
    return sum(hit for value, hit in pixels[:size] if value > 0) / size


def test_topk_by_hand() -> None:
    assert topk_precision(QUARTERS, TRUTH, k=3, patch=2).tolist() == [[0.0, 0.5, pytest.approx(1 / 3)]]
    assert topk_precision(QUARTERS, TRUTH, k=2, patch=2, score="max").tolist() == [[1.0, 0.5]]
    assert topk_precision(QUARTERS, TRUTH, k=1, patch=4).tolist() == [[1.0]]


def test_topk_beyond_the_positive_patches_stays() -> None:
    curve = topk_precision(QUARTERS, TRUTH, k=9, patch=2)
    assert curve.shape == (1, 9)
    assert curve[0, 2:].tolist() == pytest.approx([1 / 3] * 7)


@pytest.mark.parametrize("score", ["mean", "max"])
@pytest.mark.parametrize("patch", [1, 2, 3, 5])
def test_topk_equals_the_slow_reference(score: str, patch: int) -> None:
    curve = topk_precision(MAPS, MASKS, k=7, patch=patch, score=score)  # type: ignore[arg-type]
    expected = torch.tensor(slow_topk(MAPS, MASKS, 7, patch, score), dtype=torch.float64)
    torch.testing.assert_close(curve, expected, equal_nan=True)


def test_topk_breaks_ties_by_position() -> None:
    maps, first = torch.ones(1, 2, 2), torch.tensor([[[1, 0], [0, 0]]])
    assert topk_precision(maps, first, k=1, patch=1).item() == 1.0
    assert topk_precision(maps, first.flip(2), k=1, patch=1).item() == 0.0


@pytest.mark.parametrize("name", ["k", "patch"])
def test_topk_refuses_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"Expected `{name}` to be at least 1, but got 0"):
        topk_precision(QUARTERS, TRUTH, **{"k": 1, "patch": 1} | {name: 0})


def test_localization_precision_by_hand() -> None:
    assert localization_precision(QUARTERS, TRUTH, patch=2).item() == pytest.approx(1 / 3)
    assert localization_precision(QUARTERS, TRUTH, patch=2, score="max").item() == 0.5
    assert localization_precision(QUARTERS, TRUTH, patch=4).item() == 1.0


def test_localization_precision_is_the_end_of_the_topk_curve() -> None:
    torch.testing.assert_close(
        localization_precision(MAPS, MASKS, patch=3), topk_precision(MAPS, MASKS, k=9, patch=3)[:, -1], equal_nan=True
    )


def test_activation_precision_by_definition() -> None:
    energy = MAPS.clamp_min(0)
    torch.testing.assert_close(activation_precision(MAPS, MASKS), (energy * MASKS).sum((1, 2)) / energy.sum((1, 2)))


def test_activation_sensitivity_by_definition() -> None:
    energy = MAPS.clamp_min(0) / MAPS.amax((1, 2), keepdim=True)
    torch.testing.assert_close(activation_sensitivity(MAPS, MASKS), (energy * MASKS).sum((1, 2)) / MASKS.sum((1, 2)))


def test_rank_accuracy_equals_the_slow_reference() -> None:
    expected = [slow_rank(image, truth) for image, truth in zip(MAPS, MASKS, strict=True)]
    assert rank_accuracy(MAPS, MASKS).tolist() == pytest.approx(expected)


def test_rank_accuracy_selects_positive_pixels_only() -> None:
    maps, masks = torch.tensor([[[-1.0, -2.0, 3.0]]]), torch.tensor([[[1, 0, 1]]])
    assert rank_accuracy(maps, masks).item() == 0.5


def test_pointing_game_takes_the_first_maximum() -> None:
    maps, masks = torch.tensor([[[1.0, 5.0], [5.0, 0.0]]]), torch.tensor([[[0, 1], [0, 0]]])
    assert pointing_game(maps, masks).item() == 1.0
    assert pointing_game(maps, masks.mT).item() == 0.0
    assert pointing_game(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0, 1]]])).item() == 0.0


@pytest.mark.parametrize(("tolerance", "hit"), [(0, 0.0), (4.99, 0.0), (5, 1.0)])
def test_pointing_game_tolerance_is_a_euclidean_radius(tolerance: float, hit: float) -> None:
    maps, masks = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)
    maps[0, 1, 2], masks[0, 4, 6] = 1.0, 1.0
    assert pointing_game(maps, masks, tolerance=tolerance).item() == hit
    assert pointing_game(maps.mT, masks.mT, tolerance=tolerance).item() == hit


def test_pointing_game_of_a_negative_map_still_points() -> None:
    assert pointing_game(torch.tensor([[[-2.0, -1.0]]]), torch.tensor([[[0, 1]]])).item() == 1.0


def test_pointing_game_of_a_constant_map_is_nan() -> None:
    assert pointing_game(torch.ones(1, 2, 2), torch.ones(1, 2, 2)).isnan().item()


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_pointing_game_refuses_negative_tolerance(tolerance: float) -> None:
    with pytest.raises(ValueError, match="Expected `tolerance` to be at least 0 pixels"):
        pointing_game(MAPS, MASKS, tolerance=tolerance)


def test_iou_by_hand_with_the_threshold_left_out() -> None:
    maps, masks = torch.tensor([[[4.0, 1.0, 2.0, 0.0]]]), torch.tensor([[[1, 1, 0, 0]]])
    assert iou(maps, masks, threshold=0.5).item() == pytest.approx(2 / 3)
    assert iou(maps, masks, threshold=1.0).item() == pytest.approx(1 / 3)
    assert iou(maps, masks, threshold=2.0).item() == 0.5
    assert iou(maps, masks, threshold=4.0).item() == 0.0


def test_pixel_auroc_counts_pairs() -> None:
    maps, masks = torch.tensor([[[4.0, 1.0], [2.0, 1.0]]]), torch.tensor([[[1, 1], [0, 0]]])
    assert pixel_auroc(maps, masks).item() == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_pixel_average_precision_by_hand() -> None:
    maps, masks = torch.tensor([[[4.0, 3.0, 2.0]]]), torch.tensor([[[1, 0, 1]]])
    assert pixel_average_precision(maps, masks).item() == pytest.approx((1 + 2 / 3) / 2)


def test_pixel_auroc_of_a_full_mask_is_nan() -> None:
    maps, full = torch.tensor([[[4.0, 3.0]]]), torch.ones(1, 1, 2)
    assert pixel_auroc(maps, full).isnan().item()
    assert pixel_average_precision(maps, full).item() == 1.0


@pytest.mark.parametrize("name", METRICS)
def test_empty_mask_is_nan_and_its_neighbour_is_not(name: str) -> None:
    masks = torch.stack([torch.zeros_like(MASKS[0]), MASKS[1]])
    values = METRICS[name](MAPS[:2], masks).reshape(2, -1)
    assert values.dtype == torch.float64
    assert values[0].isnan().all()
    assert not values[1].isnan().any()


@pytest.mark.parametrize(
    "name",
    ["topk_precision", "localization_precision", "activation_precision", "activation_sensitivity", "rank_accuracy"],
)
def test_map_without_positive_evidence_is_nan(name: str) -> None:
    assert METRICS[name](-MAPS[:1].abs(), torch.ones(1, 8, 9)).isnan().all()


@pytest.mark.parametrize("name", METRICS)
def test_every_image_is_judged_alone(name: str) -> None:
    together = METRICS[name](MAPS, MASKS)
    alone = torch.cat([METRICS[name](MAPS[i : i + 1], MASKS[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, equal_nan=True)


@pytest.mark.parametrize("name", METRICS)
def test_input_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="of the shape of `maps`"):
        METRICS[name](MAPS, MASKS[:, 1:])
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        METRICS[name](MAPS / 0, MASKS)
    with pytest.raises(ValueError, match="Expected `masks` to be 0 or 1"):
        METRICS[name](MAPS, MASKS.double() / 2)
    with pytest.raises(TypeError, match="Expected `maps` to be floating point"):
        METRICS[name](MASKS, MASKS)


def test_patch_at_exactly_zero_is_not_positive() -> None:
    maps, masks = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0, 1]]])
    assert localization_precision(maps, masks, patch=1).item() == 1.0
    assert topk_precision(maps, masks, k=2, patch=1).tolist() == [[1.0, 1.0]]
    assert rank_accuracy(maps, 1 - masks).item() == 0.0
