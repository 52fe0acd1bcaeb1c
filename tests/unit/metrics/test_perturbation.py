from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from softcam.metrics import Regions, infidelity, sensitivity_n

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 2, 6, 7, generator=GENERATOR, dtype=torch.float64)
MAPS = torch.randn(3, 6, 7, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([1, 0, 1])
REGIONS = Regions(patch=3, samples=20, seed=4)


def predict(images: Tensor) -> Tensor:
    """Logits: the sum of all values, and of their squares."""
    return torch.stack([images.sum((1, 2, 3)), (images**2).sum((1, 2, 3))], 1)


def exact(images: Tensor, target: Tensor) -> Tensor:
    """What each pixel adds to the output, so that any set of pixels is forecast without an error."""
    return torch.stack([images.sum(1), (images**2).sum(1)], 1)[torch.arange(len(images)), target]


def slow_pairs(masks: list[Tensor], fill: float) -> tuple[np.ndarray, np.ndarray]:
    evidence, change = np.zeros((3, len(masks))), np.zeros((3, len(masks)))
    for i in range(3):
        for j, mask in enumerate(masks):
            image = IMAGES[i].clone()
            image[:, mask[i]] = fill
            evidence[i, j] = sum(float(v) for v in MAPS[i][mask[i]])
            change[i, j] = float((predict(IMAGES[i][None]) - predict(image[None]))[0, TARGET[i]])
    return evidence, change


@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_infidelity_equals_the_slow_reference(fill: float) -> None:
    masks = list(REGIONS.draw_squares(3, (6, 7)))
    evidence, change = slow_pairs(masks, fill)
    got = infidelity(predict, IMAGES, MAPS, TARGET, regions=REGIONS, fill=fill, scaled=False)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx(list(np.mean((evidence - change) ** 2, axis=1)))
    # The best factor, searched for.
    factors = np.linspace(-50, 50, 100_001)[:, None]
    best = [np.min(np.mean((factors * e - c) ** 2, axis=1)) for e, c in zip(evidence, change, strict=True)]
    scaled = infidelity(predict, IMAGES, MAPS, TARGET, regions=REGIONS, fill=fill)
    assert scaled.tolist() == pytest.approx(best, rel=1e-5)


def test_infidelity_by_hand() -> None:
    images = torch.tensor([[[[4.0, 1.0]]]])
    maps, target = torch.tensor([[[1.0, 3.0]]]), torch.tensor([0])
    regions = Regions(patch=1, samples=400)
    left = torch.stack([mask[0, 0, 0] for mask in regions.draw_squares(1, (1, 2))]).double().mean().item()
    assert 0.4 < left < 0.6
    raw = infidelity(predict, images, maps, target, regions=regions, scaled=False).item()
    assert raw == pytest.approx(left * (1 - 4) ** 2 + (1 - left) * (3 - 1) ** 2)
    factor = (left * 1 * 4 + (1 - left) * 3 * 1) / (left * 1 + (1 - left) * 9)
    scaled = infidelity(predict, images, maps, target, regions=regions).item()
    assert scaled == pytest.approx(left * (factor - 4) ** 2 + (1 - left) * (3 * factor - 1) ** 2)


def test_exact_attributions_have_no_error_and_correlate_fully() -> None:
    maps = exact(IMAGES, TARGET)
    assert infidelity(predict, IMAGES, maps, TARGET, regions=REGIONS, scaled=False).abs().max() < 1e-20
    correlations = sensitivity_n(predict, IMAGES, maps, TARGET, sizes=(1, 2, 4), regions=REGIONS)
    torch.testing.assert_close(correlations, torch.ones(3, 3, dtype=torch.float64))
    reverse = sensitivity_n(predict, IMAGES, -maps, TARGET, sizes=(1, 2), regions=REGIONS)
    torch.testing.assert_close(reverse, -torch.ones(3, 2, dtype=torch.float64))


def test_the_unit_of_a_map_matters_only_unscaled() -> None:
    maps = exact(IMAGES, TARGET) + MAPS
    pairs = [
        [infidelity(predict, IMAGES, m, TARGET, regions=REGIONS, scaled=scaled) for m in (maps, maps / 42)]
        for scaled in (True, False)
    ]
    torch.testing.assert_close(*pairs[0])
    assert (pairs[1][0] != pairs[1][1]).all()
    correlations = [sensitivity_n(predict, IMAGES, m, TARGET, sizes=(2,), regions=REGIONS) for m in (maps, maps / 42)]
    torch.testing.assert_close(*correlations)


def test_a_map_of_nothing_scores_the_mean_squared_change() -> None:
    _, change = slow_pairs(list(REGIONS.draw_squares(3, (6, 7))), 0.0)
    for scaled in (True, False):
        got = infidelity(predict, IMAGES, MAPS * 0, TARGET, regions=REGIONS, scaled=scaled)
        assert got.tolist() == pytest.approx(list(np.mean(change**2, axis=1)))


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_sensitivity_equals_the_slow_reference(patch: int) -> None:
    regions, sizes = Regions(patch=patch, samples=15, seed=2), (1, 2, 5)
    expected = np.zeros((3, 3))
    for j, size in enumerate(sizes):
        evidence, change = slow_pairs(list(regions.draw_subsets(3, (6, 7), size)), 0.2)
        expected[:, j] = [np.corrcoef(e, c)[0, 1] for e, c in zip(evidence, change, strict=True)]
    got = sensitivity_n(predict, IMAGES, MAPS, TARGET, sizes=sizes, regions=regions, fill=0.2)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)


def test_what_never_differs_is_undefined() -> None:
    total = 6
    everything = sensitivity_n(predict, IMAGES, MAPS, TARGET, sizes=(total,), regions=REGIONS)
    assert everything.isnan().all()
    blind = sensitivity_n(lambda x: predict(x * 0), IMAGES, MAPS, TARGET, sizes=(1,), regions=REGIONS)
    assert blind.isnan().all()
    # Patches of one size: the same evidence in each.
    square = sensitivity_n(predict, IMAGES[..., :6], MAPS[..., :6] * 0 + 0.1, TARGET, sizes=(2,), regions=REGIONS)
    assert square.isnan().all()
    once = sensitivity_n(predict, IMAGES, MAPS, TARGET, sizes=(1,), regions=Regions(patch=3, samples=1))
    assert once.isnan().all()


def test_squares_lie_in_the_image_everywhere_alike() -> None:
    masks = torch.stack(list(Regions(patch=2, samples=3000).draw_squares(2, (3, 4))))
    assert (masks.sum((2, 3)) == 4).all()
    corners = masks.flatten(0, 1).double()
    shares = torch.tensor([corners[:, row, column].mean().item() for row, column in [(0, 0), (0, 3), (2, 0), (2, 3)]])
    # Two places down and three across.
    torch.testing.assert_close(shares, torch.full((4,), 1 / 6), atol=0.02, rtol=0)
    assert (masks[:, 0] != masks[:, 1]).any()


def test_subsets_have_their_size_and_all_patches_alike() -> None:
    masks = torch.stack(list(Regions(patch=2, samples=2000).draw_subsets(2, (4, 4), 3))).flatten(0, 1)
    assert (masks.sum((1, 2)) == 12).all()
    torch.testing.assert_close(masks.double().mean(0), torch.full((4, 4), 0.75, dtype=torch.float64), atol=0.03, rtol=0)
    cut = next(Regions(patch=4, samples=1).draw_subsets(1, (6, 7), 4))
    assert cut.shape == (1, 6, 7)
    assert cut.all()


@pytest.mark.parametrize("metric", [infidelity, lambda *a, **k: sensitivity_n(*a, **k, sizes=(1, 2))[:, 1]])
def test_each_argument_matters(metric: Callable[..., Tensor]) -> None:
    base = metric(predict, IMAGES, MAPS, TARGET, regions=REGIONS)
    variants = [
        metric(lambda x: predict(x**3), IMAGES, MAPS, TARGET, regions=REGIONS),
        metric(predict, IMAGES**2, MAPS, TARGET, regions=REGIONS),
        metric(predict, IMAGES, MAPS**2, TARGET, regions=REGIONS),
        metric(predict, IMAGES, MAPS, 1 - TARGET, regions=REGIONS),
        metric(predict, IMAGES, MAPS, TARGET, regions=Regions(patch=2, samples=20, seed=4)),
        metric(predict, IMAGES, MAPS, TARGET, regions=Regions(patch=3, samples=21, seed=4)),
        metric(predict, IMAGES, MAPS, TARGET, regions=Regions(patch=3, samples=20, seed=5)),
        metric(predict, IMAGES, MAPS, TARGET, regions=REGIONS, fill="blur"),
    ]
    assert all((base != variant).all() for variant in variants)
    only_last = metric(predict, IMAGES, torch.cat([MAPS[:2], MAPS[2:] ** 2]), TARGET, regions=REGIONS)
    assert torch.equal(base[:2], only_last[:2])
    assert base[2] != only_last[2]


def test_sizes_are_columns() -> None:
    both = sensitivity_n(predict, IMAGES, MAPS, TARGET, sizes=(4, 1), regions=REGIONS)
    for column, size in enumerate((4, 1)):
        alone = sensitivity_n(predict, IMAGES, MAPS, TARGET, sizes=(size,), regions=REGIONS)
        torch.testing.assert_close(both[:, column], alone[:, 0])
    assert (both[:, 0] != both[:, 1]).all()


def test_nothing_global_is_drawn_and_no_gradient_kept() -> None:
    state, seen = torch.get_rng_state(), []

    def spy(images: Tensor) -> Tensor:
        seen.append((torch.is_grad_enabled(), images.requires_grad))
        return predict(images)

    images = IMAGES.clone().requires_grad_()
    for metric in (infidelity, lambda *a, **k: sensitivity_n(*a, **k, sizes=(1,))):
        first, again = (metric(spy, images, MAPS, TARGET, regions=REGIONS) for _ in range(2))  # type: ignore[operator]
        assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(seen) == {(False, False)}
    assert len(seen) == 4 * 21


@pytest.mark.parametrize("metric", [infidelity, lambda *a, **k: sensitivity_n(*a, **k, sizes=(1,))])
def test_input_is_refused(metric: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"Expected `images` to be \(3, C, H, W\)"):
        metric(predict, IMAGES[:2], MAPS, TARGET, regions=REGIONS)
    with pytest.raises(ValueError, match=r"Expected `target` to be \(3,\) integers"):
        metric(predict, IMAGES, MAPS, TARGET[:2], regions=REGIONS)
    with pytest.raises(ValueError, match=r"Expected `target` to lie in \[0, 2\)"):
        metric(predict, IMAGES, MAPS, TARGET + 1, regions=REGIONS)
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        metric(predict, IMAGES, MAPS / 0, TARGET, regions=REGIONS)
    with pytest.raises(ValueError, match="Expected `fill` to be one of"):
        metric(predict, IMAGES, MAPS, TARGET, regions=REGIONS, fill="white")
    with pytest.raises(ValueError, match="Expected `predict` to give finite outputs"):
        metric(lambda x: predict(x) / 0, IMAGES, MAPS, TARGET, regions=REGIONS)
    with pytest.raises(ValueError, match=r"Expected `predict` to return \(3, K\)"):
        metric(lambda x: predict(x)[:, 0], IMAGES, MAPS, TARGET, regions=REGIONS)


def test_squares_larger_than_the_image_are_refused() -> None:
    assert infidelity(predict, IMAGES, MAPS, TARGET, regions=Regions(patch=6, samples=3)).isfinite().all()
    with pytest.raises(ValueError, match="Expected `patch` to be at most 6, but got 7"):
        infidelity(predict, IMAGES, MAPS, TARGET, regions=Regions(patch=7))


@pytest.mark.parametrize("sizes", [(), (0,), (1, 7)])
def test_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Expected `sizes` to be numbers from 1 to the 6 patches"):
        sensitivity_n(predict, IMAGES, MAPS, TARGET, sizes=sizes, regions=REGIONS)


def test_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected `patch` to be at least 1, but got 0"):
        Regions(patch=0)
    with pytest.raises(ValueError, match="Expected `samples` to be at least 1, but got 0"):
        Regions(patch=1, samples=0)
