from __future__ import annotations

import torch
from torch import nn

from softcam.attribution.floors import random_map


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
