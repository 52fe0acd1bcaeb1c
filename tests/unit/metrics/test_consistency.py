from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softcam.metrics.consistency import grid_pointing_game, negative_share, positive_share

MAPS = torch.tensor([[[1.0, -1.0], [0.0, 2.0]], [[-3.0, -1.0], [-1e-30, 0.0]]])


def test_shares_by_hand_with_zero_as_neither() -> None:
    assert positive_share(MAPS).tolist() == [0.5, 0.0]
    assert negative_share(MAPS).tolist() == [0.25, 0.75]
    assert positive_share(MAPS).dtype == torch.float64


def test_shares_swap_with_the_sign() -> None:
    torch.testing.assert_close(positive_share(-MAPS), negative_share(MAPS))


@pytest.mark.parametrize("metric", [positive_share, negative_share])
def test_shares_refuse_not_finite(metric: object) -> None:
    with pytest.raises(ValueError, match="Expected `maps` to be finite"):
        metric(torch.full((1, 2, 2), float("nan")))  # type: ignore[operator]


def own_pixels(images: Tensor, target: Tensor) -> Tensor:
    """Evidence of a class is what the channel of that number shows."""
    return images[torch.arange(len(images)), target]


# Images of four classes, each with one value in the channel of its class and a tenth of it in the others.
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 0])
COLOURS = torch.full((10, 4, 3, 5), 0.1, dtype=torch.float64)
COLOURS[torch.arange(10), LABELS] = 1.0


def test_a_mosaic_by_hand() -> None:
    share = grid_pointing_game(own_pixels, COLOURS, LABELS, grid=2)
    assert share.dtype == torch.float64
    # Its own tile has 1 for each pixel, the three others 0.1.
    assert share.tolist() == pytest.approx([1 / 1.3] * 10)


def test_a_map_that_is_the_same_everywhere_is_chance() -> None:
    for grid in (2, 3):
        labels = torch.arange(10)
        share = grid_pointing_game(lambda x, _: torch.ones_like(x[:, 0]), COLOURS, labels, grid=grid)
        assert share.tolist() == pytest.approx([1 / grid**2] * 10)


def test_negative_evidence_does_not_count() -> None:
    share = grid_pointing_game(lambda x, t: own_pixels(x, t) - 0.5, COLOURS, LABELS, grid=2)
    assert share.tolist() == [1.0] * 10
    share = grid_pointing_game(lambda x, t: 0.5 - own_pixels(x, t), COLOURS, LABELS, grid=2)
    assert share.tolist() == [0.0] * 10
    assert grid_pointing_game(lambda x, t: -own_pixels(x, t), COLOURS, LABELS, grid=2).isnan().all()


@pytest.mark.parametrize("grid", [2, 3])
def test_mosaics_are_fed_whole_with_other_classes_at_full_size(grid: int) -> None:
    images = torch.arange(12.0)[:, None, None, None] + torch.zeros(12, 1, 2, 4)
    labels = torch.arange(12) % (grid**2 + 1)
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(mosaics: Tensor, target: Tensor) -> Tensor:
        seen.append((mosaics, target))
        return mosaics[:, 0] + 1

    share = grid_pointing_game(spy, images, labels, grid=grid)
    mosaics, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert mosaics.shape == (12, 1, 2 * grid, 4 * grid)
    assert torch.equal(targets, labels)
    assert max(len(part) for part, _ in seen) == -(-12 // grid**2)
    places = []
    for image, mosaic in enumerate(mosaics[:, 0]):
        tiles = mosaic.reshape(grid, 2, grid, 4).permute(0, 2, 1, 3).reshape(grid**2, 8)
        assert (tiles == tiles[:, :1]).all()
        shown = tiles[:, 0].long()
        assert sorted(labels[shown].tolist()) == sorted(set(labels[shown].tolist()))
        place = shown.tolist().index(image)
        places.append(place)
        assert share[image].item() == pytest.approx((image + 1) / float((shown + 1).sum()))
    assert len(set(places)) > 2


def test_two_classes_fill_a_mosaic_but_never_with_their_own() -> None:
    labels = torch.tensor([0, 1, 1, 1, 1, 1])
    colours = COLOURS[labels]
    share = grid_pointing_game(own_pixels, colours, labels, grid=2)
    assert share.isnan().tolist() == [False] + [True] * 5
    assert share[0].item() == pytest.approx(1 / 1.3)
    even = grid_pointing_game(own_pixels, COLOURS[:2].repeat(3, 1, 1, 1), LABELS[:2].repeat(3), grid=2)
    assert even.tolist() == pytest.approx([1 / 1.3] * 6)


def test_no_mosaic_at_all_asks_nothing() -> None:
    def never(_images: Tensor, _target: Tensor) -> Tensor:
        raise AssertionError

    assert grid_pointing_game(never, COLOURS, LABELS * 0, grid=2).isnan().all()
    assert grid_pointing_game(never, COLOURS, LABELS, grid=4).isnan().all()


def test_small_maps_are_resized_bilinearly_before_their_sign_counts() -> None:
    def coarse(mosaics: Tensor, target: Tensor) -> Tensor:
        return F.avg_pool2d(own_pixels(mosaics, target)[:, None], (3, 5))[:, 0] - 0.4

    def fine(mosaics: Tensor, target: Tensor) -> Tensor:
        return F.interpolate(coarse(mosaics, target)[:, None], mosaics.shape[2:], mode="bilinear")[:, 0]

    got = grid_pointing_game(coarse, COLOURS, LABELS, grid=2)
    torch.testing.assert_close(got, grid_pointing_game(fine, COLOURS, LABELS, grid=2))
    assert (got < 1).all()


def test_each_argument_of_the_game_matters() -> None:
    images = torch.rand(10, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    base = grid_pointing_game(own_pixels, images, LABELS, grid=2)
    variants = [
        grid_pointing_game(lambda x, t: own_pixels(x, t) ** 2, images, LABELS, grid=2),
        grid_pointing_game(own_pixels, images**2, LABELS, grid=2),
        grid_pointing_game(own_pixels, images, (LABELS + 1) % 4, grid=2),
        grid_pointing_game(own_pixels, images, LABELS.roll(1), grid=2),
        grid_pointing_game(own_pixels, images, LABELS, grid=2, seed=1),
    ]
    assert all((base != variant).any() for variant in variants)
    assert (base != grid_pointing_game(own_pixels, images, LABELS.clamp_max(1), grid=2)).any()


def test_the_game_repeats_and_draws_nothing_global() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - what must not change
    images = torch.rand(10, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    first, again = (grid_pointing_game(own_pixels, images, LABELS, grid=2) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002 - see above


def test_the_game_refuses_other_input() -> None:
    with pytest.raises(ValueError, match="Expected `grid` to be at least 2, but got 1"):
        grid_pointing_game(own_pixels, COLOURS, LABELS, grid=1)
    with pytest.raises(ValueError, match=r"Expected `images` to be \(N, C, H, W\)"):
        grid_pointing_game(own_pixels, COLOURS[:, 0], LABELS, grid=2)
    with pytest.raises(ValueError, match=r"Expected `labels` to be \(10,\) integers"):
        grid_pointing_game(own_pixels, COLOURS, LABELS[:9], grid=2)
    with pytest.raises(ValueError, match=r"Expected `labels` to be \(10,\) integers"):
        grid_pointing_game(own_pixels, COLOURS, LABELS.float(), grid=2)
    with pytest.raises(ValueError, match=r"Expected `explain` to return 3 maps, but got 1"):
        grid_pointing_game(lambda x, _: x[:1, 0], COLOURS, LABELS, grid=2)
    with pytest.raises(ValueError, match=r"Expected `explain\(images, target\)` to be finite"):
        grid_pointing_game(lambda x, _: x[:, 0] / 0, COLOURS, LABELS, grid=2)
