from __future__ import annotations

import torch

from softcam.attribution.seeds import create_generator


def test_the_same_image_has_the_same_numbers_in_any_memory_format() -> None:
    image = torch.randn(1, 3, 4, 5)
    last = image.to(memory_format=torch.channels_last)
    first, second, other = (torch.rand(4, generator=create_generator(x)) for x in (image[0], last[0], image[0] + 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_global_generator_stays() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=create_generator(torch.zeros(1, 2, 2)))
    assert torch.equal(torch.get_rng_state(), before)
