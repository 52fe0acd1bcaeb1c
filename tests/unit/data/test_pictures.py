"""Written images: cut out, resampled, encoded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from softcam.data import pictures
from softcam.imaging import decode_image


def test_a_cut_is_black_beyond_the_image() -> None:
    pixels = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    assert pictures.cut(pixels, (-1, 1, 2, 4)).tolist() == [[0, 5, 6], [0, 9, 10], [0, 0, 0]]
    colour = np.dstack([pixels, pixels, pixels])
    assert pictures.cut(colour, (2, 0, 5, 1))[0].tolist() == [[3, 3, 3], [4, 4, 4], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shrinking_takes_the_mean_of_each_area(dtype: type) -> None:
    pixels = np.array([[10, 20, 0, 0], [30, 40, 0, 200]], dtype=dtype)
    found = pictures.resample(pixels, 2, 1)
    assert found.tolist() == [[25, 50]]
    assert found.dtype == dtype


def test_colours_of_16_bits_are_resampled_in_full_and_written_with_8() -> None:
    pixels = np.full((2, 2, 3), (256 * 7, 256 * 9 + 255, 65535), np.uint16)
    assert pictures.resample(pixels, 1, 1).tolist() == [[[1792, 2559, 65535]]]
    assert decode_image(pictures.encode(pixels)).pixels[0, 0].tolist() == [7, 9, 255]


def test_growing_is_smooth_and_the_same_size_is_the_same_image() -> None:
    pixels = np.array([[0, 100]], np.uint8)
    grown = pictures.resample(pixels, 8, 4)
    assert np.all(np.diff(grown.astype(int), axis=1) >= 0)
    assert len(np.unique(grown)) > 2
    assert pictures.resample(pixels, 2, 1) is pixels


@pytest.mark.parametrize(("shape", "size", "expected"), [((100, 300), 50, (50, 150)), ((496, 1024), 496, (496, 1024)),
                                                         ((30, 20, 3), 10, (15, 10, 3))])  # fmt: skip
def test_the_shorter_side_gets_the_size(shape: tuple[int, ...], size: int, expected: tuple[int, ...]) -> None:
    assert pictures.fit_shorter(np.zeros(shape, np.uint8), size).shape == expected


@pytest.mark.parametrize(("shape", "dtype"), [((20, 30), np.uint8), ((20, 30), np.uint16), ((1, 1), np.uint8),
                                              ((20, 30, 3), np.uint8), ((300, 2, 3), np.uint8)])  # fmt: skip
def test_other_readers_get_back_what_was_encoded(shape: tuple[int, ...], dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    content = pictures.encode(pixels)
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", (shape[1], shape[0]))
        assert np.array_equal(np.asarray(image).astype(dtype), pixels)
    if min(shape[:2]) > 1:
        assert np.array_equal(decode_image(content).pixels, pixels)


def test_smooth_images_become_small_files() -> None:
    pixels = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    assert len(pictures.encode(pixels)) < pixels.size / 20
