from __future__ import annotations

import torch
from torch import nn

from softcam.attribution.floors import center_gaussian, edges, random_map


def test_uniform_and_independent_of_model_and_target() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = random_map(nn.Identity(), images, torch.tensor([0, 1]))
    assert 0 <= float(maps.min()) < 0.01
    assert 0.99 < float(maps.max()) < 1
    assert abs(float(maps.mean()) - 0.5) < 0.01
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(maps, random_map(nn.Flatten(), images, torch.tensor([1, 0])))


def test_seeded_by_the_image_and_not_by_its_place_or_memory_format() -> None:
    images = torch.randn(3, 3, 8, 8)
    maps = random_map(nn.Identity(), images, torch.zeros(3))
    flipped = images.flip(0).to(memory_format=torch.channels_last)
    assert torch.equal(random_map(nn.Identity(), flipped, torch.zeros(3)), maps.flip(0))


def test_global_generator_stays() -> None:
    before = torch.get_rng_state()
    random_map(nn.Identity(), torch.zeros(1, 3, 4, 4), torch.zeros(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_edges_by_hand() -> None:
    # A corner: the Sobel sums across and down are both 3 at the cell diagonal to it.
    image = torch.zeros(1, 1, 3, 3)
    image[..., 1:, 1:] = 1
    maps = edges(nn.Identity(), image, torch.tensor([0]))
    torch.testing.assert_close(maps[0, 1, 1], torch.tensor(18.0).sqrt())
    torch.testing.assert_close(maps[0], maps[0].T)
    assert maps[0, 0, 0] == torch.tensor(2.0).sqrt()


def test_edges_are_those_of_the_mean_channel_whatever_the_level() -> None:
    images = torch.randn(2, 3, 6, 5)
    maps = edges(nn.Identity(), images, torch.zeros(2))
    torch.testing.assert_close(edges(nn.Flatten(), images.mean(1, keepdim=True) + 7, torch.ones(2)), maps)
    torch.testing.assert_close(edges(nn.Identity(), -2 * images, torch.zeros(2)), 2 * maps)


def test_centre_gaussian_is_even_and_falls_by_a_quarter_of_each_side() -> None:
    maps = center_gaussian(nn.Identity(), torch.zeros(2, 3, 9, 13), torch.zeros(2))
    assert maps.shape == (2, 9, 13)
    assert float(maps[0, 4, 6]) == 1
    torch.testing.assert_close(maps, maps.flip(1, 2))
    wide = center_gaussian(nn.Identity(), torch.zeros(1, 1, 1, 200), torch.zeros(1))[0, 0]
    # A deviation away from the centre, at three quarters of the side.
    torch.testing.assert_close(float(wide[150]), float(torch.exp(torch.tensor(-0.5))), rtol=0.02, atol=0)


def test_centre_gaussians_do_not_share_memory() -> None:
    maps = center_gaussian(nn.Identity(), torch.zeros(2, 1, 4, 4), torch.zeros(2))
    maps[0] = 0
    assert maps[1].min() > 0
