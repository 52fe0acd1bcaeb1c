from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from softcam.metrics.patches import (
    count_patches,
    order_patches,
    paint_patches,
    rank_patches,
    resize_maps,
    score_patches,
)


def slow_scores(maps: Tensor, patch: int, score: str) -> Tensor:
    images, height, width = maps.shape
    rows, columns = math.ceil(height / patch), math.ceil(width / patch)
    out = torch.zeros(images, rows, columns, dtype=torch.float64)
    for i in range(images):
        for r in range(rows):
            for c in range(columns):
                cell = maps[i, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
                out[i, r, c] = cell.mean() if score == "mean" else cell.max()
    return out


@pytest.mark.parametrize("score", ["mean", "max"])
@pytest.mark.parametrize("patch", [1, 2, 3, 4, 7, 20])
def test_scores_match_the_slow_reference(score: str, patch: int) -> None:
    maps = torch.randn(2, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(score_patches(maps, patch, score), slow_scores(maps, patch, score))  # type: ignore[arg-type]


def test_scores_refuse_unknown_and_zero() -> None:
    with pytest.raises(ValueError, match="Expected `score` to be 'mean' or 'max', but got 'sum'"):
        score_patches(torch.zeros(1, 2, 2), 1, "sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected `patch` to be at least 1, but got 0"):
        score_patches(torch.zeros(1, 2, 2), 0)


@pytest.mark.parametrize(
    ("size", "patch", "count"), [((4, 4), 2, 4), ((5, 4), 2, 6), ((4, 5), 2, 6), ((2, 9), 10, 1), ((3, 2), 1, 6)]
)
def test_count(size: tuple[int, int], patch: int, count: int) -> None:
    assert count_patches(size, patch) == count
    assert score_patches(torch.zeros(1, *size), patch).numel() == count


def test_count_refuses_zero() -> None:
    with pytest.raises(ValueError, match="Expected `patch` to be at least 1"):
        count_patches((4, 4), 0)


def test_order_is_best_first_with_ties_by_position() -> None:
    scores = torch.tensor([[1.0, 3.0, -2.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert order_patches(scores).tolist() == [[1, 3, 0, 4, 2], [0, 1, 2, 3, 4]]


def test_order_ties_what_differs_only_by_rounding_at_any_scale() -> None:
    for scale in (1e-30, 1.0, 1e30):
        scores = scale * torch.tensor([[0.3, 0.1 + 0.2, 1.0]], dtype=torch.float64)
        assert scores[0, 1] > scores[0, 0]
        assert order_patches(scores).tolist() == [[2, 0, 1]]
        assert order_patches(scores * torch.tensor([1.0, 1.0001, 1.0])).tolist() == [[2, 1, 0]]


def test_ranks_invert_the_order() -> None:
    scores = torch.tensor([[[1.0, 3.0], [-2.0, 2.0]]], dtype=torch.float64)
    assert rank_patches(scores).tolist() == [[[2, 0], [3, 1]]]


def test_paint_cuts_off_at_the_edge() -> None:
    selected = torch.tensor([[[True, False], [False, True]]])
    assert paint_patches(selected, 2, (3, 4)).int().tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]]
    assert paint_patches(selected, 2, (4, 3)).int().tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]]


def test_resize_is_bilinear_and_leaves_the_right_size_alone() -> None:
    maps = torch.tensor([[[0.0, 4.0]]])
    assert resize_maps(maps, (1, 4)).tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
    assert resize_maps(maps, (1, 2)) is maps
    columns = torch.tensor([[[0.0], [4.0]], [[8.0], [4.0]]])
    assert resize_maps(columns, (4, 1)).flatten(1).tolist() == [[0.0, 1.0, 3.0, 4.0], [8.0, 7.0, 5.0, 4.0]]
