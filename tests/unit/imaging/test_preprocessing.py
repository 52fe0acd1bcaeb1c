from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from softcam.imaging.decode import decode_image, image_from_array
from softcam.imaging.geometry import Rectangle
from softcam.imaging.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

PLAIN = Preprocessing(size=32, mean=(0.0,), std=(1.0,), channels=1)
RANDOM = np.random.default_rng(0)


def triangle(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - np.abs(distance), 0, None)


def cubic(distance: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(distance)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def slow_weights(length: int, start: float, stop: float, size: int, kernel: Any) -> np.ndarray:
    """(size, length) antialiased resampling weights of the window from start to stop, in float64."""
    scale = (stop - start) / size
    centres = start + (np.arange(size)[:, None] + 0.5) * scale
    weights = kernel((np.arange(length)[None, :] + 0.5 - centres) / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)


def slow_resize(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """(S, S) float64, not clipped; the window is worked out here again, by hand."""
    height, width = pixels.shape
    sides = (height, width) if preprocessing.fit == "squash" else (min(height, width),) * 2
    kernel = {"bilinear": triangle, "bicubic": cubic}[preprocessing.interpolation]
    rows, columns = (
        slow_weights(
            length,
            (length - side * preprocessing.crop_fraction) / 2,
            (length + side * preprocessing.crop_fraction) / 2,
            preprocessing.size,
            kernel,
        )
        for length, side in zip((height, width), sides, strict=True)
    )
    return rows @ pixels.astype(np.float64) @ columns.T


class TestResize:
    @pytest.mark.parametrize("shape", [(64, 64), (50, 91), (91, 50), (20, 20), (11, 64), (33, 31)])
    @pytest.mark.parametrize("fit", ["shorter", "squash"])
    @pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_both_depths_agree_with_a_slow_reference(
        self, shape: tuple[int, int], fit: str, crop_fraction: float, interpolation: str
    ) -> None:
        preprocessing = dataclasses.replace(PLAIN, fit=fit, crop_fraction=crop_fraction, interpolation=interpolation)
        for kind, tolerance in ((np.uint16, 2e-6), (np.uint8, 1.5 / 255)):
            top = np.iinfo(kind).max
            # Away from the ends, because Pillow saturates eight bits between the two axes as well.
            pixels = RANDOM.integers(top // 3, 2 * top // 3, shape, dtype=kind)
            tensor, _ = preprocessing.resize(image_from_array(pixels))
            expected = np.clip(slow_resize(pixels, preprocessing) / top, 0, 1)
            np.testing.assert_allclose(tensor[0].numpy(), expected, atol=tolerance)

    def test_shape_type_and_range(self) -> None:
        pixels = RANDOM.integers(0, 256, (30, 45, 3), dtype=np.uint8)
        tensor, geometry = Preprocessing(size=20)(image_from_array(pixels))
        assert tensor.shape == (3, 20, 20)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert (geometry.original_height, geometry.original_width, geometry.input_width) == (30, 45, 20)

    def test_the_same_size_is_left_untouched(self) -> None:
        for kind in (np.uint8, np.uint16):
            image = image_from_array(RANDOM.integers(0, 256, (32, 32, 3)).astype(kind))
            tensor, _ = Preprocessing(size=32).resize(image)
            np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), image.to_float())

    def test_bicubic_overshoot_stays_in_range_for_sixteen_bits(self) -> None:
        step = np.zeros((16, 16), np.uint16)
        step[:, 8:] = 65_535
        preprocessing = dataclasses.replace(PLAIN, interpolation="bicubic")
        assert slow_resize(step, preprocessing).max() > 65_535
        tensor, _ = preprocessing.resize(image_from_array(step))
        assert (tensor.min(), tensor.max()) == (0, 1)

    def test_steps_below_one_part_in_256_survive(self) -> None:
        ramp = np.tile(np.arange(1024, 1088, dtype=np.uint16), (64, 1))
        tensor, _ = PLAIN.resize(image_from_array(ramp))
        assert tensor[0, 0].unique().numel() == 32
        eight = image_from_array((ramp >> 8).astype(np.uint8))
        assert PLAIN.resize(eight)[0].unique().numel() == 1

    def test_a_panorama_costs_no_more_than_a_square(self) -> None:
        # Resizing first and cropping then would need 224 x 56,000,000 pixels here.
        strip = image_from_array(np.zeros((2, 500_000), np.uint8))
        tensor, geometry = Preprocessing().resize(strip)
        assert tensor.shape == (3, 224, 224)
        assert geometry.view == Rectangle(249_999, 0, 2, 2)

    def test_pixels_are_not_changed(self) -> None:
        image = image_from_array(RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        before = image.pixels.copy()
        tensor, _ = Preprocessing(size=32).resize(image)
        tensor.zero_()
        np.testing.assert_array_equal(image.pixels, before)


class TestChannels:
    def test_grey_is_repeated_to_three(self) -> None:
        tensor, _ = Preprocessing(size=8).resize(image_from_array(RANDOM.integers(0, 256, (9, 9), dtype=np.uint8)))
        assert torch.equal(tensor[0], tensor[1])
        assert torch.equal(tensor[0], tensor[2])
        tensor[0].zero_()
        assert tensor[1].any()

    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    def test_colour_becomes_luma_for_one(self, kind: type) -> None:
        top = np.iinfo(kind).max
        for channel, weight in enumerate((0.299, 0.587, 0.114)):
            pixels = np.zeros((32, 32, 3), kind)
            pixels[..., channel] = top
            tensor, _ = PLAIN.resize(image_from_array(pixels))
            assert tensor.shape == (1, 32, 32)
            assert tensor.mean().item() == pytest.approx(weight, abs=1e-6)

    def test_colours_keep_their_order(self) -> None:
        pixels = np.zeros((10, 10, 3), np.uint8)
        pixels[...] = (255, 51, 0)
        tensor, _ = Preprocessing(size=4).resize(image_from_array(pixels))
        assert tensor[:, 2, 2].tolist() == pytest.approx([1, 0.2, 0])


class TestGeometryIsWhatHappens:
    """Pixels of known place are found where the geometry says."""

    SHAPES = ((40, 40), (61, 97), (97, 61), (300, 411), (13, 29), (7, 5))

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("fit", ["shorter", "squash"])
    @pytest.mark.parametrize("crop_fraction", [1.0, 0.9])
    def test_an_image_of_its_own_coordinates(self, shape: tuple[int, int], fit: str, crop_fraction: float) -> None:
        preprocessing = dataclasses.replace(PLAIN, fit=fit, crop_fraction=crop_fraction)
        rows, columns = np.indices(shape)
        ramps = [image_from_array((values * 100).astype(np.uint16)) for values in (columns, rows)]
        (x, geometry), (y, _) = (preprocessing.resize(ramp) for ramp in ramps)
        margin = 1 + int(np.ceil(max(1 / geometry.scale_x, 1 / geometry.scale_y)))
        for row in range(margin, 32 - margin, 5):
            for column in range(margin, 32 - margin, 5):
                seen = [ramp[0, row, column].item() * 655.35 + 0.5 for ramp in (x, y)]
                assert seen == pytest.approx(geometry.to_original(column + 0.5, row + 0.5), abs=0.1)

    @pytest.mark.parametrize("shape", [(120, 200), (201, 119), (64, 64), (24, 40)])
    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    def test_a_marker_is_found_again(self, shape: tuple[int, int], kind: type) -> None:
        preprocessing = Preprocessing(size=48, crop_fraction=0.95)
        row, column = int(shape[0] * 0.55), int(shape[1] * 0.42)
        pixels = np.zeros(shape, kind)
        pixels[row - 2 : row + 3, column - 2 : column + 3] = np.iinfo(kind).max
        tensor, geometry = preprocessing.resize(image_from_array(pixels))
        weights = tensor[0].numpy() / tensor[0].sum().item()
        y, x = ((np.indices(weights.shape) + 0.5) * weights).sum(axis=(1, 2))
        assert geometry.to_original(x, y) == pytest.approx((column + 0.5, row + 0.5), abs=0.3)

    @pytest.mark.parametrize("fit", ["shorter", "squash"])
    def test_a_cell_rectangle_holds_what_the_cell_saw(self, fit: str) -> None:
        preprocessing = dataclasses.replace(PLAIN, fit=fit)
        geometry = preprocessing.locate(90, 150)
        for row, column in ((0, 0), (1, 3), (3, 2)):
            left, top, right, bottom = geometry.cell_rectangle(row, column, grid=(4, 4)).corners
            pixels = np.zeros((90, 150), np.uint8)
            pixels[round(top) : round(bottom), round(left) : round(right)] = 255
            tensor, _ = preprocessing.resize(image_from_array(pixels))
            cells = tensor[0].reshape(4, 8, 4, 8).mean(dim=(1, 3))
            assert divmod(int(cells.argmax()), 4) == (row, column)
            assert cells[row, column] > 0.9
            assert cells.sum() - cells[row, column] < 0.15

    def test_geometry_by_hand(self) -> None:
        shorter = Preprocessing(size=100, crop_fraction=0.5).locate(200, 300)
        assert (shorter.scale_x, shorter.scale_y, shorter.offset_x, shorter.offset_y) == (1, 1, 100, 50)
        squash = Preprocessing(size=100, fit="squash", crop_fraction=0.5).locate(200, 300)
        assert (squash.scale_x, squash.scale_y, squash.offset_x, squash.offset_y) == (1.5, 1, 75, 50)

    def test_an_orientation_is_seen_through(self, tmp_path: Path) -> None:
        stored = np.zeros((40, 80), np.uint8)
        stored[5:9, 60:64] = 255
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise: stored (row, column) is shown at (column, 39 - row)
        Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
        image = decode_image(tmp_path / "turned.png")
        tensor, geometry = dataclasses.replace(PLAIN, fit="squash").resize(image)
        row, column = divmod(int(tensor[0].argmax()), 32)
        assert geometry.to_original(column + 0.5, row + 0.5) == pytest.approx((33, 62), abs=1.5)


class TestNormalize:
    def test_by_hand(self) -> None:
        preprocessing = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
        normalized = preprocessing.normalize(torch.ones(3, 1, 1))
        assert normalized.flatten().tolist() == [1, 3, 0.5]

    def test_batches_types_and_the_argument_are_kept(self) -> None:
        images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
        before = images.clone()
        normalized = Preprocessing().normalize(images)
        assert normalized.dtype == torch.float64
        assert torch.equal(images, before)
        assert torch.allclose(normalized[1], Preprocessing().normalize(images[1]))

    def test_call_is_resize_then_normalize(self) -> None:
        image = image_from_array(RANDOM.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        preprocessing = Preprocessing(size=16)
        resized, geometry = preprocessing.resize(image)
        tensor, same = preprocessing(image)
        assert torch.equal(tensor, preprocessing.normalize(resized))
        assert same == geometry

    @pytest.mark.parametrize("shape", [(1, 4, 4), (4, 4), (3, 1, 4, 4)])
    def test_other_channels_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"Expected `images` to be \(\.\.\., 3, H, W\), but got shape"):
            Preprocessing().normalize(torch.zeros(shape))


class TestRecord:
    def test_json_returns_an_equal_record(self) -> None:
        record = Preprocessing(299, "squash", 0.875, (0.5,), (0.25,), "bicubic", 1)
        assert Preprocessing.from_dict(json.loads(json.dumps(record.to_dict()))) == record
        assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301

    def test_defaults_are_imagenet(self) -> None:
        assert Preprocessing.from_dict({}) == Preprocessing(
            224, "shorter", 1.0, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 3
        )

    def test_an_unknown_key_is_refused_with_the_closest_one(self) -> None:
        with pytest.raises(ValueError, match="Did you mean 'interpolation'"):
            Preprocessing.from_dict({"interpolaton": "bicubic"})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"size": 0}, "Expected `size` to be a whole number of at least 1, but got 0"),
            ({"size": 2.5}, "Expected `size` to be a whole number"),
            ({"size": True}, "Expected `size` to be a whole number"),
            ({"fit": "longer"}, "Expected `fit` to be one of 'shorter', 'squash', but got 'longer'"),
            ({"interpolation": "nearest"}, "Expected `interpolation` to be one of 'bilinear', 'bicubic'"),
            ({"crop_fraction": 0.0}, r"Expected `crop_fraction` to be in \(0, 1\], but got 0.0"),
            ({"crop_fraction": 1.001}, r"Expected `crop_fraction` to be in \(0, 1\], but got 1.001"),
            ({"channels": 2}, "Expected `channels` to be one of 1, 3, but got 2"),
            ({"channels": 1}, r"Expected `mean` to hold 1 number\(s\), one per channel, but got 3"),
            ({"std": (1.0,)}, r"Expected `std` to hold 3 number\(s\)"),
            ({"std": (1.0, 0.0, 1.0)}, "Expected `std` to be finite and positive"),
            ({"mean": (0.0, float("nan"), 0.0)}, "Expected `mean` to be finite"),
        ],
    )
    def test_values_out_of_range(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Preprocessing(**change)


class TestRealImages:
    def test_a_radiograph_keeps_its_mean_through_resizing(self, shared_data: Path) -> None:
        for path in sorted((shared_data / "rsna_samples").glob("*.png"))[:2]:
            image = decode_image(path)
            tensor, geometry = Preprocessing().resize(image)
            assert tensor.mean().item() == pytest.approx(image.to_float().mean(), abs=2e-3)
            assert geometry.view == Rectangle(0, 0, 1024, 1024)

    def test_a_wide_photograph(self) -> None:
        image = decode_image(Path(skimage.__file__).parent / "data" / "chelsea.png")
        tensor, geometry = Preprocessing(size=96).resize(image)
        side = image.height
        left = (image.width - side) / 2
        assert geometry.view == pytest.approx((left, 0, side, side))
        crop = image.to_float()[:, int(left) : int(left) + side]
        np.testing.assert_allclose(tensor.mean(dim=(1, 2)).numpy(), crop.mean(axis=(0, 1)), atol=2e-3)


class TestResizeMask:
    def test_a_single_pixel_survives(self) -> None:
        mask = np.zeros((100, 200), dtype=bool)
        mask[57, 120] = True
        found = Preprocessing(size=10).resize_mask(mask)
        assert (found.dtype, found.shape, int(found.sum())) == (torch.bool, (10, 10), 1)
        assert bool(found[5, 7])  # the window begins at column 50

    def test_what_lies_outside_of_the_window_is_left_out(self) -> None:
        mask = np.zeros((40, 40), dtype=bool)
        mask[:10] = True
        assert not Preprocessing(size=20, crop_fraction=0.5).resize_mask(mask).any()
        assert Preprocessing(size=20).resize_mask(mask)[:5].all()

    def test_the_size_of_the_original_is_kept_pixel_by_pixel(self) -> None:
        mask = RANDOM.random((32, 32)) > 0.5
        assert np.array_equal(PLAIN.resize_mask(mask).numpy(), mask)


class TestReducedImages:
    """What was decoded at a part of its size lies where the whole lies."""

    def make(self, height: int, width: int) -> bytes:
        rows, columns = np.mgrid[:height, :width]
        waves = 128 + 60 * np.sin(rows / 17) + 60 * np.cos(columns / 23)
        stream = io.BytesIO()
        Image.fromarray(waves.astype(np.uint8)).save(stream, "JPEG", quality=95)
        return stream.getvalue()

    @pytest.mark.parametrize("fit", ["shorter", "squash"])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize(
        ("size", "crop", "factor"),
        [((256, 320), 1.0, 4), ((321, 259), 0.9, 2), ((131, 141), 1.0, 2), ((531, 517), 0.5, 4)],
    )
    def test_show_the_same_at_the_same_place(
        self, fit: Any, interpolation: Any, size: tuple[int, int], crop: float, factor: int
    ) -> None:
        preprocessing = Preprocessing(size=32, fit=fit, interpolation=interpolation, crop_fraction=crop)
        content = self.make(*size)
        whole, reduced = decode_image(content), decode_image(content, least_side=preprocessing.least_side)
        assert reduced.reduction == factor
        (seen, there), (rough, here) = preprocessing.resize(whole), preprocessing.resize(reduced)
        assert here == there == preprocessing.locate(*size)
        # One grey level is 0.004; a window that is off by one reduced pixel differs by 0.05.
        assert float((seen - rough).abs().max()) < 0.02

    @pytest.mark.parametrize(("size", "crop", "side"), [(224, 1.0, 448), (224, 0.875, 512), (32, 0.95, 68)])
    def test_keep_two_pixels_for_each_of_the_input(self, size: int, crop: float, side: int) -> None:
        preprocessing = Preprocessing(size=size, crop_fraction=crop)
        assert preprocessing.least_side == side
        assert preprocessing.locate(side, side).scale_x >= 2 > preprocessing.locate(side - 1, side - 1).scale_x


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_call_is_resize_and_normalize_to_the_last_bit(shape: tuple[int, ...], channels: int) -> None:
    mean, std = IMAGENET_MEAN[:channels], IMAGENET_STD[:channels]
    preprocessing = Preprocessing(size=32, mean=mean, std=std, channels=channels)
    image = image_from_array(RANDOM.integers(0, 256, shape, dtype=np.uint8))
    tensor, _ = preprocessing(image)
    assert torch.equal(tensor, preprocessing.normalize(preprocessing.resize(image)[0]))
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
