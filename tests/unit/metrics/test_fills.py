from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from softcam.metrics.fills import FILLS, BlurFill, ConstantFill, NoisyLinearFill, find_fill

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(2, 3, 12, 10, generator=GENERATOR)
REMOVED = torch.rand(2, 12, 10, generator=GENERATOR) < 0.4


def slow_linear(image: Tensor, removed: Tensor) -> Tensor:
    """Repeat the neighbours' weighted mean until it no longer changes."""
    height, width = removed.shape
    out = image.double().clone()
    out[:, removed] = 0.0
    steps = {(r, c): 1 / 6 if 0 in (r, c) else 1 / 12 for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)}
    for _ in range(200):
        for y, x in removed.nonzero().tolist():
            near = [(y + r, x + c, w) for (r, c), w in steps.items() if 0 <= y + r < height and 0 <= x + c < width]
            out[:, y, x] = sum(w * out[:, v, u] for v, u, w in near) / sum(w for *_, w in near)
    return out


@pytest.mark.parametrize("name", FILLS)
def test_what_is_not_removed_stays(name: str) -> None:
    filled = FILLS[name](IMAGES)(REMOVED)
    kept = ~REMOVED.unsqueeze(1).expand_as(IMAGES)
    assert torch.equal(filled[kept], IMAGES[kept])
    assert filled.shape == IMAGES.shape
    assert filled.dtype == IMAGES.dtype
    assert torch.equal(FILLS[name](IMAGES)(torch.zeros_like(REMOVED)), IMAGES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FILLS)
def test_what_is_removed_changes_and_the_images_do_not(name: str, dtype: torch.dtype) -> None:
    images = IMAGES.to(dtype, copy=True)
    filled = FILLS[name](images)(REMOVED)
    gone = REMOVED.unsqueeze(1).expand_as(images)
    assert (filled[gone] != images[gone]).all()
    assert torch.equal(images, IMAGES.to(dtype))


def test_constant_is_the_value() -> None:
    for value in (0.0, -1.5):
        filled = ConstantFill(value)(IMAGES)(REMOVED)
        assert (filled[REMOVED.unsqueeze(1).expand_as(IMAGES)] == value).all()


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2])
def test_blur_equals_scipy(sigma: float) -> None:
    images = IMAGES.double()
    blurred = BlurFill(sigma)(images)(torch.ones_like(REMOVED))
    width = sigma * 10
    radius = int(np.ceil(3 * width))
    for got, image in zip(blurred.flatten(0, 1), images.flatten(0, 1), strict=True):
        expected = ndimage.gaussian_filter(image.numpy(), width, mode="mirror", radius=radius)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_blur_of_a_tiny_image_cannot_mirror_further_than_it_is_long() -> None:
    tiny = torch.tensor([[[[1.0, 3.0]]]])
    assert BlurFill(1.0)(tiny)(torch.ones(1, 1, 2, dtype=torch.bool)).sum().item() == pytest.approx(4.0)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_blur_refuses_other_sigma(sigma: float) -> None:
    with pytest.raises(ValueError, match="Expected `sigma` to be above 0"):
        BlurFill(sigma)


def test_linear_imputation_equals_the_fixed_point() -> None:
    filled = NoisyLinearFill(noise=0)(IMAGES.double())(REMOVED)
    for got, image, removed in zip(filled, IMAGES, REMOVED, strict=True):
        torch.testing.assert_close(got, slow_linear(image, removed), atol=1e-9, rtol=0)


def test_linear_imputation_by_hand_in_a_corner() -> None:
    image = torch.tensor([[[[9.0, 1.0], [2.0, 6.0]]]], dtype=torch.float64)
    removed = torch.tensor([[[True, False], [False, False]]])
    expected = (1 / 6 * 1 + 1 / 6 * 2 + 1 / 12 * 6) / (5 / 12)
    assert NoisyLinearFill(noise=0)(image)(removed)[0, 0, 0, 0].item() == pytest.approx(expected)


def test_linear_imputation_of_nothing_left_is_zero_plus_noise() -> None:
    everything = torch.ones_like(REMOVED)
    assert NoisyLinearFill(noise=0)(IMAGES)(everything).abs().max() == 0
    assert NoisyLinearFill(noise=0.5)(IMAGES)(everything).std().item() == pytest.approx(0.5, rel=0.1)


def test_noise_depends_on_its_seed_and_on_nothing_global() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again = NoisyLinearFill()(IMAGES)(REMOVED), NoisyLinearFill()(IMAGES)(REMOVED)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, NoisyLinearFill(seed=1)(IMAGES)(REMOVED))
    smooth = NoisyLinearFill(noise=0)(IMAGES)(REMOVED)
    assert 0 < (first - smooth).abs().max() < 0.05


@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_noise_refuses_negative(noise: float) -> None:
    with pytest.raises(ValueError, match="Expected `noise` to be at least 0"):
        NoisyLinearFill(noise=noise)


def test_fill_is_found_by_name_value_or_itself() -> None:
    fill = BlurFill()
    assert find_fill("mean") == ConstantFill(0.0)
    assert find_fill("blur") == BlurFill()
    assert find_fill("noisy_linear") == NoisyLinearFill()
    assert find_fill(2) == ConstantFill(2)
    assert find_fill(fill) is fill


def test_unknown_fill() -> None:
    with pytest.raises(
        ValueError, match=r"Expected `fill` to be one of \['blur', 'mean', 'noisy_linear'\], but got 'x'"
    ):
        find_fill("x")
