from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from softcam.metrics.similarity import correlate, find_similarity, spearman, structural_similarity

GENERATOR = torch.Generator().manual_seed(0)
# One decimal: with ties.
FIRST = torch.randn(4, 9, 11, generator=GENERATOR, dtype=torch.float64).mul(10).round().div(10)
SECOND = (FIRST + torch.randn(4, 9, 11, generator=GENERATOR, dtype=torch.float64)).mul(10).round().div(10)
BOTH = [spearman, structural_similarity]


def slow_ssim(first: np.ndarray, second: np.ndarray) -> float:
    a, b = 0.5 + first / np.abs(first).max() / 2, 0.5 + second / np.abs(second).max() / 2
    values = []
    for y in range(a.shape[0] - 6):
        for x in range(a.shape[1] - 6):
            p, q = a[y : y + 7, x : x + 7].ravel(), b[y : y + 7, x : x + 7].ravel()
            shared = np.cov(p, q)
            top = (2 * p.mean() * q.mean() + 0.01**2) * (2 * shared[0, 1] + 0.03**2)
            values.append(top / ((p.mean() ** 2 + q.mean() ** 2 + 0.01**2) * (shared[0, 0] + shared[1, 1] + 0.03**2)))
    return float(np.mean(values))


def test_spearman_equals_scipy_on_ties() -> None:
    pairs = zip(FIRST, SECOND, strict=True)
    expected = [stats.spearmanr(a.flatten().numpy(), b.flatten().numpy()).statistic for a, b in pairs]
    assert spearman(FIRST, SECOND).tolist() == pytest.approx(expected)


def test_spearman_by_hand() -> None:
    first = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [2.0, 3.0]]])
    second = torch.tensor([[[4.0, 3.0], [2.0, 1.0]], [[0.0, 5.0], [5.0, 9.0]]])
    # Ranks 0.5, 0.5, 2, 3 and 0, 1.5, 1.5, 3 about their mean 1.5.
    assert spearman(first, second).tolist() == pytest.approx([-1.0, (1.5 + 0.0 + 0.0 + 2.25) / 4.5])


def test_structure_equals_the_slow_reference() -> None:
    expected = [slow_ssim(a.numpy(), b.numpy()) for a, b in zip(FIRST, SECOND, strict=True)]
    assert structural_similarity(FIRST, SECOND).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("similarity", BOTH)
def test_sameness_symmetry_and_range(similarity: Callable[[Tensor, Tensor], Tensor]) -> None:
    ones = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(similarity(FIRST, FIRST), ones)
    torch.testing.assert_close(similarity(FIRST.float(), 3 * FIRST.float()).double(), ones)
    torch.testing.assert_close(similarity(FIRST, SECOND), similarity(SECOND, FIRST))
    assert (similarity(FIRST, -FIRST) < -0.5).all()
    assert similarity(FIRST, SECOND).dtype == torch.float64
    only_last = similarity(FIRST, torch.cat([SECOND[:3], FIRST[3:]]))
    assert (only_last != similarity(FIRST, SECOND)).tolist() == [False, False, False, True]


def test_spearman_knows_order_only_and_nothing_of_a_constant() -> None:
    torch.testing.assert_close(spearman(FIRST.exp(), SECOND**3), spearman(FIRST, SECOND))
    constant = torch.full_like(FIRST, 0.1)
    assert spearman(FIRST, constant).isnan().all()
    assert spearman(constant, FIRST).isnan().all()


def test_structure_of_nothing_is_undefined_but_not_of_a_constant() -> None:
    assert structural_similarity(FIRST, FIRST * 0).isnan().all()
    assert structural_similarity(FIRST * 0, FIRST).isnan().all()
    assert structural_similarity(FIRST, FIRST * 0 + 2).isfinite().all()


def test_one_window() -> None:
    first, second = FIRST[:, :7, :7], SECOND[:, :7, :7]
    expected = [slow_ssim(a.numpy(), b.numpy()) for a, b in zip(first, second, strict=True)]
    assert structural_similarity(first, second).tolist() == pytest.approx(expected)
    for shape in (first[:, :6], first[..., :6]):
        with pytest.raises(ValueError, match="Expected maps to have sides of at least 7, but got"):
            structural_similarity(shape, shape)


def test_correlation_of_extremes() -> None:
    rows = torch.tensor([[1.0, 2.0, 4.0], [5.0, 5.0, 5.0], [0.1, 0.2, 0.3]], dtype=torch.float64)
    other = torch.tensor([[2.0, 4.0, 8.0], [1.0, 2.0, 3.0], [3.0, 3.0, 3.0]], dtype=torch.float64)
    assert correlate(rows * 1e-300, other).tolist() == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)
    assert correlate(rows * 1e300, other).tolist() == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)
    # Nothing but the rounding of a sum.
    rounded = torch.tensor([[0.1 + 0.2, 0.3, 0.3]], dtype=torch.float64)
    assert correlate(rounded, other[:1]).isnan().all()


@pytest.mark.parametrize("similarity", BOTH)
def test_input_is_refused(similarity: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(
        ValueError, match=r"Expected both maps to be of one shape, but got \(4, 9, 11\) and \(3, 9, 11\)"
    ):
        similarity(FIRST, SECOND[:3])
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        similarity(FIRST, SECOND / 0)
    with pytest.raises(TypeError, match="Expected `maps` to be floating point"):
        similarity(FIRST.long(), SECOND)


def test_similarity_is_found_by_name_or_itself() -> None:
    assert find_similarity("spearman") is spearman
    assert find_similarity("ssim") is structural_similarity
    assert find_similarity(correlate) is correlate
    with pytest.raises(
        ValueError, match=r"Expected `similarity` to be one of \['spearman', 'ssim'\], but got 'cosine'"
    ):
        find_similarity("cosine")
