from __future__ import annotations

import pytest
import torch
from torch import Tensor

from softcam.metrics import Road, road
from softcam.metrics.fills import NoisyLinearFill

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 2, 6, 7, generator=GENERATOR, dtype=torch.float64)
MAPS = torch.randn(3, 6, 7, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([1, 0, 1])
SHARES = (0.1, 0.5, 0.9)


def predict(images: Tensor) -> Tensor:
    """The left half decides: class 1 by its mean."""
    positive = images[..., :3].mean((1, 2, 3)).clamp(0, 1)
    return torch.stack([1 - positive, positive], 1)


def slow_curve(sign: float) -> Tensor:
    out = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        order = sorted(range(42), key=lambda p: -sign * float(MAPS[i].flatten()[p]))
        for j, share in enumerate(SHARES):
            removed = torch.zeros(1, 42, dtype=torch.bool)
            removed[0, order[: round(42 * share)]] = True
            filled = NoisyLinearFill(noise=0)(IMAGES[i : i + 1])(removed.reshape(1, 6, 7))
            out[i, j] = predict(filled)[0, TARGET[i]]
    return out


def test_both_curves_equal_the_slow_reference() -> None:
    got = road(predict, IMAGES, MAPS, TARGET, shares=SHARES, noise=0)
    torch.testing.assert_close(got.morf, slow_curve(1))
    torch.testing.assert_close(got.lerf, slow_curve(-1))


def test_combination_by_hand() -> None:
    curves = Road(torch.tensor([[0.25, 0.5]]), torch.tensor([[0.75, 0.25]]))
    assert curves.combined.tolist() == [[0.25, -0.125]]


def test_one_pixel_by_hand() -> None:
    images = torch.tensor([[[[0.9, 0.1, 0.5], [0.2, 0.6, 0.5]]]], dtype=torch.float64)
    maps = torch.tensor([[[3.0, 0.5, 0.4], [0.3, 0.2, -1.0]]])

    def first_and_last(batch: Tensor) -> Tensor:
        return torch.stack([batch[:, 0, 0, 0], batch[:, 0, 1, 2]], 1)

    # One of six pixels: the corner at the left becomes the mean of its three neighbours, weights 1/6, 1/6 and 1/12.
    corner = (0.1 / 6 + 0.2 / 6 + 0.6 / 12) / (5 / 12)
    for target, morf, lerf in [(0, corner, 0.9), (1, 0.5, (0.5 / 6 + 0.6 / 6 + 0.1 / 12) / (5 / 12))]:
        got = road(first_and_last, images, maps, torch.tensor([target]), shares=(1 / 6,), noise=0)
        assert got.morf.item() == pytest.approx(morf)
        assert got.lerf.item() == pytest.approx(lerf)


def test_it_follows_a_probability_where_correctness_would_not_change() -> None:
    def sure(images: Tensor) -> Tensor:
        return 0.6 + 0.4 * predict(images) if images.shape[0] else images

    got = road(lambda x: sure(x)[:, [1, 1]], IMAGES, MAPS, torch.zeros(3, dtype=torch.long), shares=SHARES)
    assert ((got.morf > 0.6) & (got.morf < 1)).all()
    assert got.morf.unique().numel() == 9


def test_a_negated_map_swaps_the_orders() -> None:
    forward = road(predict, IMAGES, MAPS, TARGET, shares=SHARES, noise=0)
    backward = road(predict, IMAGES, -MAPS, TARGET, shares=SHARES, noise=0)
    torch.testing.assert_close(forward.combined, -backward.combined)
    assert (forward.combined.abs().amax(1) > 0).all()


def test_the_right_map_is_rewarded() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[..., 2:5, 2:5] = 1.0

    def mass(batch: Tensor) -> Tensor:
        share = (batch.mean((1, 2, 3)) * 4).clamp(0, 1)
        return torch.stack([1 - share, share], 1)

    good = road(mass, images, images[:, 0], torch.tensor([1]), noise=0).combined.mean(1)
    bad = road(mass, images, -images[:, 0], torch.tensor([1]), noise=0).combined.mean(1)
    assert good.item() > 0.1
    assert bad.item() < -0.1


def test_each_argument_matters() -> None:
    base = road(predict, IMAGES, MAPS, TARGET, shares=SHARES)
    variants = [
        road(lambda x: predict(x) ** 2, IMAGES, MAPS, TARGET, shares=SHARES),
        road(predict, IMAGES / 2, MAPS, TARGET, shares=SHARES),
        road(predict, IMAGES, MAPS.flip(2), TARGET, shares=SHARES),
        road(predict, IMAGES, MAPS, 1 - TARGET, shares=SHARES),
        road(predict, IMAGES, MAPS, TARGET, shares=(0.2, 0.5, 0.8)),
        road(predict, IMAGES, MAPS, TARGET, shares=SHARES, noise=0.2),
        road(predict, IMAGES, MAPS, TARGET, shares=SHARES, seed=1),
    ]
    for changed in variants:
        assert not torch.equal(base.morf, changed.morf)
        assert not torch.equal(base.lerf, changed.lerf)
    last = torch.cat([IMAGES[:2], IMAGES[2:] / 2])
    changed = road(predict, last, MAPS, TARGET, shares=SHARES)
    assert torch.equal(base.morf[:2], changed.morf[:2])
    assert (base.morf[2] != changed.morf[2]).any()


def test_default_shares_and_types() -> None:
    got = road(predict, IMAGES.float(), MAPS.float(), TARGET)
    assert got.morf.shape == got.lerf.shape == got.combined.shape == (3, 9)
    assert got.morf.dtype == got.combined.dtype == torch.float64


def test_nothing_global_is_drawn() -> None:
    state = torch.get_rng_state()
    first, again = (road(predict, IMAGES, MAPS, TARGET, shares=SHARES, noise=0.3) for _ in range(2))
    assert torch.equal(first.morf, again.morf)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shares", [(), (-0.1, 0.5), (0.5, 1.1), (0.5, 0.4), (0.5, 0.501), (0.5, float("nan"))])
def test_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `shares` to lie in \[0, 1\] and to increase by at least one of 42"):
        road(predict, IMAGES, MAPS, TARGET, shares=shares)


def test_other_input_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected `noise` to be at least 0"):
        road(predict, IMAGES, MAPS, TARGET, noise=-1)
    with pytest.raises(ValueError, match=r"Expected `images` to be \(3, C, H, W\)"):
        road(predict, IMAGES[:2], MAPS, TARGET)
    with pytest.raises(ValueError, match=r"Expected `target` to be \(3,\) integers"):
        road(predict, IMAGES, MAPS, TARGET[:2])
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        road(predict, IMAGES, MAPS / 0, TARGET)
