from __future__ import annotations

import math

import pytest
import torch

from softcam.nn.penalties import ElasticNet


def slow_penalty(maps: torch.Tensor, l1: float, l2: float) -> float:
    """The paper's form, cell by cell: batch mean of l1 * sum |A| + l2 * sqrt(sum A^2)."""
    total = 0.0
    for image in maps.double():
        cells = image.flatten().tolist()
        total += l1 * sum(abs(cell) for cell in cells) + l2 * math.sqrt(sum(cell**2 for cell in cells))
    return total / len(maps)


def test_by_hand() -> None:
    maps = torch.tensor([[[[3.0, -4.0]]], [[[0.0, -1.0]]]])
    assert ElasticNet(l1=1.0)(maps).item() == 4.0
    assert ElasticNet(l2=1.0)(maps).item() == 3.0
    assert ElasticNet(l1=0.5, l2=2.0)(maps).item() == 8.0
    assert ElasticNet()(maps).item() == 0.0


def test_size_free_by_hand() -> None:
    maps = torch.tensor([[[[3.0, -4.0]], [[0.0, 0.0]]]])
    assert ElasticNet(l1=1.0, size_free=True)(maps).item() == 7 / 4
    assert ElasticNet(l2=1.0, size_free=True)(maps).item() == 2.5


def test_signals_and_volumes_by_hand() -> None:
    signals = torch.tensor([[[3.0, -4.0, 0.0]], [[0.0, -1.0, 0.0]]])
    volumes = signals.reshape(2, 1, 3, 1, 1)
    for maps in (signals, volumes):
        assert ElasticNet(l1=1.0)(maps).item() == 4.0
        assert ElasticNet(l2=1.0)(maps).item() == 3.0
        assert ElasticNet(l1=3.0, size_free=True)(maps).item() == 4.0
        assert ElasticNet(l2=1.0, size_free=True)(maps).item() == pytest.approx(3 / math.sqrt(3))


@pytest.mark.parametrize("grid", [(4, 5), (7,), (2, 3, 4)])
@pytest.mark.parametrize(("l1", "l2"), [(1e-3, 0.0), (0.0, 1e-2), (0.3, 0.7)])
def test_against_the_slow_form(l1: float, l2: float, grid: tuple[int, ...]) -> None:
    maps = torch.randn(3, 2, *grid, dtype=torch.float64)
    assert ElasticNet(l1, l2)(maps).item() == pytest.approx(slow_penalty(maps, l1, l2), rel=1e-12)


def test_the_ridge_is_a_norm_of_the_whole_image() -> None:
    # A norm per cell would be the lasso, a norm over the batch would mix images.
    maps = torch.ones(2, 2, 3, 3)
    assert ElasticNet(l2=1.0)(maps).item() == pytest.approx(math.sqrt(18))


@pytest.mark.parametrize("image", [0, 1, 2])
def test_every_image_of_the_batch_counts(image: int) -> None:
    maps = torch.ones(3, 2, 2, 2)
    changed = maps.clone()
    changed[image] = 2.0
    for penalty in (ElasticNet(l1=1.0), ElasticNet(l2=1.0), ElasticNet(l1=1.0, size_free=True)):
        assert penalty(changed) > penalty(maps)


def test_a_batch_of_copies_costs_what_one_image_costs() -> None:
    maps = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    penalty = ElasticNet(l1=0.2, l2=0.3)
    torch.testing.assert_close(penalty(maps.repeat(5, 1, 1, 1)), penalty(maps))


@pytest.mark.parametrize(("size_free", "factor"), [(True, 1.0), (False, 4.0)])
def test_size_free_strength_carries_over_to_finer_maps(size_free: bool, factor: float) -> None:
    maps = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    finer = maps.repeat_interleave(2, -1).repeat_interleave(2, -2)
    penalty = ElasticNet(l1=1.0, size_free=size_free)
    torch.testing.assert_close(penalty(finer), factor * penalty(maps))
    ridge = ElasticNet(l2=1.0, size_free=size_free)
    torch.testing.assert_close(ridge(finer), math.sqrt(factor) * ridge(maps))


@pytest.mark.parametrize("size_free", [False, True])
def test_gradient_by_hand(size_free: bool) -> None:
    maps = torch.tensor([[[[3.0, -4.0]]], [[[0.5, 0.0]]]], requires_grad=True)
    ElasticNet(l1=1.0, l2=10.0, size_free=size_free)(maps).backward()
    lasso, ridge = (1 / 2, 10 / math.sqrt(2)) if size_free else (1.0, 10.0)
    expected = [
        [[[(lasso + ridge * 0.6) / 2, (-lasso - ridge * 0.8) / 2]]],
        [[[(lasso + ridge) / 2, 0.0]]],
    ]
    torch.testing.assert_close(maps.grad, torch.tensor(expected))


def test_gradient_is_finite_where_all_maps_are_zero() -> None:
    maps = torch.zeros(2, 2, 3, 3, requires_grad=True)
    ElasticNet(l1=1.0, l2=1.0)(maps).backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


def test_half_precision_is_summed_in_single() -> None:
    maps = torch.full((1, 2, 256, 256), 1.0, dtype=torch.float16)
    penalty = ElasticNet(l1=1.0)(maps)
    assert penalty.dtype == torch.float32
    assert penalty.item() == 131072.0  # beyond the largest float16


def test_double_precision_stays_double() -> None:
    assert ElasticNet(l1=1.0)(torch.ones(1, 1, 1, 1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
@pytest.mark.parametrize("name", ["l1", "l2"])
def test_a_strength_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"Expected `{name}` to be a finite number >= 0"):
        ElasticNet(**{name: value})


@pytest.mark.parametrize("shape", [(2, 3), (0, 2, 3, 3), (2, 0, 3, 3), (2, 3, 0), (1, 2, 3, 3, 1, 1)])
def test_maps_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `maps` to be a filled batch \(N, K, h, w\)"):
        ElasticNet(l1=1.0)(torch.zeros(shape))


def test_repr_names_the_strengths() -> None:
    assert repr(ElasticNet(1e-5, 0.25, size_free=True)) == "ElasticNet(l1=1e-05, l2=0.25, size_free=True)"
