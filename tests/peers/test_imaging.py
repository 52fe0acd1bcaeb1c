"""Preprocessing against torchvision's, where both mean the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from softcam.imaging.decode import image_from_array
from softcam.imaging.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

FILTERS = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}


def torchvision_pipeline(size: int, crop_fraction: float, interpolation: str) -> v2.Compose:
    return v2.Compose(
        [
            v2.Resize(round(size / crop_fraction), interpolation=FILTERS[interpolation]),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
@pytest.mark.parametrize("side", [57, 224, 300, 512])
def test_square_images_without_crop_are_equal_bit_by_bit(side: int, interpolation: str) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    ours, _ = Preprocessing(interpolation=interpolation)(image_from_array(pixels))
    theirs = torchvision_pipeline(224, 1.0, interpolation)(Image.fromarray(pixels))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (413, 333), (600, 300)])
@pytest.mark.parametrize("interpolation", sorted(FILTERS))
def test_smooth_photographs_with_a_crop_agree_within_the_rounding_of_a_pixel(
    height: int, width: int, interpolation: str
) -> None:
    rows, columns = np.mgrid[:height, :width] / 40
    smooth = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=2)
    pixels = np.rint(127.5 + 120 * smooth).astype(np.uint8)
    ours, _ = Preprocessing(crop_fraction=0.875, interpolation=interpolation)(image_from_array(pixels))
    theirs = torchvision_pipeline(224, 0.875, interpolation)(Image.fromarray(pixels))
    # Half a pixel of offset times the steepest slope (120 / 40 levels per pixel, times the scale) stays below this.
    assert (ours - theirs).abs().max() < 5 / 255 / min(IMAGENET_STD)
