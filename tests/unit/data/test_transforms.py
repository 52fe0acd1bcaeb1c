"""Augmentation: off by default, each number does something, everything drawn from torch's generator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from softcam.data.transforms import Augmentation

ON: dict[str, Any] = {
    "hflip": True,
    "vflip": True,
    "rotation": 30.0,
    "scale": (0.3, 0.6),
    "ratio": (0.5, 0.7),
    "translate": 0.3,
    "brightness": (0.5, 0.6),
    "contrast": (0.5, 0.6),
    "saturation": (0.1, 0.2),
    "hue": 0.4,
}


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(0))


def _apply(augmentation: Augmentation, image: Tensor, seed: int = 0) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return augmentation.build()(image)


def test_nothing_changes_by_default(image: Tensor) -> None:
    assert Augmentation().is_off
    assert torch.equal(_apply(Augmentation(p=1.0), image), image)


@pytest.mark.parametrize("name", ON)
def test_each_number_changes_the_image(name: str, image: Tensor) -> None:
    augmentation = Augmentation(p=1.0, **{name: ON[name]})
    changed = _apply(augmentation, image)
    assert not augmentation.is_off
    assert changed.shape == image.shape
    assert not torch.equal(changed, image)
    assert changed.min() >= 0.0
    assert changed.max() <= 1.0


@pytest.mark.parametrize("name", ON)
def test_probability_zero_changes_nothing(name: str, image: Tensor) -> None:
    augmentation = Augmentation(p=0.0, **{name: ON[name]})
    assert augmentation.is_off
    assert torch.equal(_apply(augmentation, image), image)


def test_probability_is_met(image: Tensor) -> None:
    change = Augmentation(p=0.25, hflip=True).build()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        changed = sum(not torch.equal(change(image), image) for _ in range(2000))
    assert 430 < changed < 570


def test_flips_are_exact(image: Tensor) -> None:
    assert torch.equal(_apply(Augmentation(p=1.0, hflip=True), image), image.flip(-1))
    assert torch.equal(_apply(Augmentation(p=1.0, vflip=True), image), image.flip(-2))


def test_brightness_is_a_factor(image: Tensor) -> None:
    torch.testing.assert_close(_apply(Augmentation(p=1.0, brightness=(0.5, 0.5)), image), image * 0.5)


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    square = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(_apply(Augmentation(p=1.0, scale=(0.9999, 1.0)), square), square)


def test_grey_images_work_with_every_change(image: Tensor) -> None:
    assert _apply(Augmentation(p=1.0, **ON), image[:1]).shape == (1, 12, 10)


def test_the_generator_decides(image: Tensor) -> None:
    augmentation = Augmentation(**ON)
    assert torch.equal(_apply(augmentation, image, seed=1), _apply(augmentation, image, seed=1))
    assert not torch.equal(_apply(augmentation, image, seed=1), _apply(augmentation, image, seed=2))


def test_lists_become_tuples() -> None:
    assert Augmentation(scale=[0.5, 1.0]) == Augmentation(scale=(0.5, 1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("p", 1.01), ("p", -0.01), ("rotation", 180.5), ("rotation", -1.0), ("translate", 1.1), ("hue", 0.51)],
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"Expected `{name}` to be in \[0, .*\], but got {value}"):
        Augmentation(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["scale", "ratio", "brightness", "contrast", "saturation"])
@pytest.mark.parametrize(
    "value", [(1.0, 0.5), (-0.1, 1.0), (1.0,), (0.5, 1.0, 2.0), (0.5, float("inf")), (float("nan"), 1)]
)
def test_ranges_must_be_ranges(name: str, value: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=rf"Expected `{name}` to be \(low, high\)"):
        Augmentation(**{name: value})  # type: ignore[arg-type]


def test_only_a_crop_needs_more_than_zero() -> None:
    assert Augmentation(brightness=(0.0, 1.0)).brightness == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"`scale` to be .* above 0"):
        Augmentation(scale=(0.0, 1.0))
