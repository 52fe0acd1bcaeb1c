from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from softcam.metrics.complexity import components, entropy, gini, near_zero_share

MAPS = torch.randn(5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ZERO = torch.zeros(1, 2, 2)


def slow_gini(values: Tensor) -> float:
    """Half the relative mean absolute difference over all pairs."""
    flat = values.abs().flatten()
    differences = (flat[:, None] - flat[None]).abs().sum()
    return float(differences / (2 * len(flat) * flat.sum()))


def slow_components(mask: list[list[bool]], steps: list[tuple[int, int]]) -> int:
    todo = {(r, c) for r, row in enumerate(mask) for c, on in enumerate(row) if on}
    count = 0
    while todo:
        count, front = count + 1, [todo.pop()]
        while front:
            r, c = front.pop()
            near = {(r + dr, c + dc) for dr, dc in steps} & todo
            todo -= near
            front += near
    return count


def test_gini_equals_the_mean_difference_over_all_pairs() -> None:
    torch.testing.assert_close(gini(MAPS), torch.tensor([slow_gini(m) for m in MAPS], dtype=torch.float64))


def test_gini_by_hand() -> None:
    assert gini(torch.tensor([[[1.0, -1.0, 1.0, 1.0]]])).item() == 0.0
    assert gini(torch.tensor([[[0.0, 0.0, 0.0, -7.0]]])).item() == 0.75
    assert gini(torch.tensor([[[1.0, 3.0]]])).item() == 0.25


def test_entropy_by_hand_and_by_definition() -> None:
    assert entropy(torch.tensor([[[2.0, -2.0], [2.0, 2.0]]])).item() == pytest.approx(math.log(4))
    assert entropy(torch.tensor([[[0.0, 9.0]]])).item() == 0.0
    share = MAPS[0].abs().flatten() / MAPS[0].abs().sum()
    assert entropy(MAPS)[0].item() == pytest.approx(-(share * share.log()).sum().item())


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_gini_and_entropy_do_not_depend_on_the_scale(scale: float) -> None:
    torch.testing.assert_close(gini(MAPS * scale), gini(MAPS))
    torch.testing.assert_close(entropy(MAPS * scale), entropy(MAPS))


def test_near_zero_share_includes_the_limit_and_uses_absolute_values() -> None:
    maps = torch.tensor([[[0.0, 1.0, -1.0, 2.0, -100.0]]])
    assert near_zero_share(maps).item() == pytest.approx(0.6)
    assert near_zero_share(maps, tolerance=0.02).item() == pytest.approx(0.8)
    assert near_zero_share(maps, tolerance=0).item() == pytest.approx(0.2)


@pytest.mark.parametrize("tolerance", [-0.01, 1.0, float("nan")])
def test_near_zero_share_refuses_other_tolerances(tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"Expected `tolerance` to lie in \[0, 1\)"):
        near_zero_share(MAPS, tolerance=tolerance)


def test_components_are_strictly_above_half_of_the_maximum() -> None:
    maps = torch.tensor([[[4.0, 0.0, 2.0]], [[4.0, 0.0, 2.01]], [[4.0, 2.01, 2.01]]])
    assert components(maps).tolist() == [1.0, 2.0, 1.0]
    assert components(torch.tensor([[[4.0, 0.0, -9.0]]])).item() == 1.0


def test_components_join_corners_with_eight_neighbours_only() -> None:
    maps = torch.eye(3)[None]
    assert components(maps).item() == 1.0
    assert components(maps, connectivity=4).item() == 3.0


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_equal_a_flood_fill(connectivity: int) -> None:
    maps = torch.rand(20, 7, 9, generator=torch.Generator().manual_seed(1))
    cross = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    steps = cross if connectivity == 4 else [*cross, (1, 1), (1, -1), (-1, 1), (-1, -1)]
    expected = [slow_components((m > m.max() / 2).tolist(), steps) for m in maps]
    assert components(maps, connectivity=connectivity).tolist() == expected  # type: ignore[arg-type]


def test_components_refuse_other_connectivity() -> None:
    with pytest.raises(ValueError, match="Expected `connectivity` to be 4 or 8, but got 6"):
        components(MAPS, connectivity=6)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", [gini, entropy, near_zero_share, components])
def test_empty_map_is_nan_beside_a_defined_one(metric: object) -> None:
    values = metric(torch.cat([ZERO, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])]))  # type: ignore[operator]
    assert values.dtype == torch.float64
    assert values.isnan().tolist() == [True, False]


def test_components_of_a_map_without_positive_evidence_is_nan() -> None:
    assert components(-torch.ones(1, 2, 2)).isnan().item()
