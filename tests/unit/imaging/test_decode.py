from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from PIL import Image, ImageFile, ImageFilter

from softcam.errors import ImageError
from softcam.imaging.decode import DecodedImage, DecodeLimits, decode_image, image_from_array

GREY8 = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
GREY16 = np.array([[0, 1, 255, 256], [257, 40_000, 65_534, 65_535], [9, 8, 7, 6]], dtype=np.uint16)
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


def encode(image: Image.Image | np.ndarray, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, file_format, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims any size and holds no pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def twelve_bit_tiff(first: tuple[int, int], second: tuple[int, int]) -> bytes:
    """A 2x2 TIFF of 12 bits, which no library at hand writes: two pixels share three bytes of a row."""
    rows = b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in (first, second))
    tags = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 14) + rows + struct.pack("<H", len(tags)) + entries + bytes(4)


class TestWhatIsRead:
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "GIF"])
    def test_eight_bit_grey_comes_back_as_stored(self, file_format: str) -> None:
        image = decode_image(encode(GREY8, file_format))
        assert image.format == file_format
        assert image.pixels.dtype == np.uint8
        # GIF knows palettes only, so grey comes back as three equal channels or as grey.
        np.testing.assert_array_equal(image.to_rgb8(), np.repeat(GREY8[..., None], 3, axis=2))

    @pytest.mark.parametrize(
        ("file_format", "options"), [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
    )
    def test_rgb_comes_back_as_stored(self, file_format: str, options: dict[str, Any]) -> None:
        image = decode_image(encode(RGB, file_format, **options))
        np.testing.assert_array_equal(image.pixels, RGB)
        assert (image.height, image.width, image.format) == (5, 7, file_format)

    @pytest.mark.parametrize(("file_format", "byte_order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">")])
    def test_sixteen_bit_grey_keeps_every_bit_in_either_byte_order(self, file_format: str, byte_order: str) -> None:
        image = decode_image(encode(GREY16.astype(f"{byte_order}u2"), file_format))
        assert image.pixels.dtype == np.dtype("=u2")
        np.testing.assert_array_equal(image.pixels, GREY16)

    def test_sixteen_bit_tiff_where_zero_is_white_is_inverted(self) -> None:
        image = decode_image(encode(GREY16, "TIFF", tiffinfo={262: 0}))
        np.testing.assert_array_equal(image.pixels, 65_535 - GREY16)

    def test_twelve_bit_tiff_is_stretched_to_the_full_scale(self) -> None:
        content = twelve_bit_tiff((0, 4095), (1, 2048))
        np.testing.assert_array_equal(decode_image(content).pixels, [[0, 65_535], [16, 2048 * 16 + 8]])

    def test_bilevel_becomes_black_and_white(self) -> None:
        pattern = GREY8 > 100
        pixels = decode_image(encode(pattern, "PNG")).pixels
        np.testing.assert_array_equal(pixels, np.where(pattern, 255, 0))

    def test_palette_becomes_rgb(self) -> None:
        paletted = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
        paletted.putpalette([10, 20, 30, 200, 100, 50])
        expected = np.array([[[10, 20, 30], [200, 100, 50]], [[200, 100, 50], [10, 20, 30]]])
        np.testing.assert_array_equal(decode_image(encode(paletted, "PNG")).pixels, expected)

    def test_a_transparent_palette_entry_becomes_black(self) -> None:
        paletted = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
        paletted.putpalette([10, 20, 30, 200, 100, 50])
        pixels = decode_image(encode(paletted, "PNG", transparency=1)).pixels
        assert pixels[0, 0].tolist() == [10, 20, 30]
        assert pixels[0, 1].tolist() == [0, 0, 0]

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    @pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
    def test_alpha_is_composited_on_black(self, file_format: str, mode: str, channels: int) -> None:
        opacity = np.array([[0, 64, 128], [200, 254, 255]], np.uint8)
        colour = np.full((2, 3, channels), 180, np.uint8)
        source = Image.fromarray(np.concatenate([colour, opacity[..., None]], axis=2), mode)
        pixels = decode_image(encode(source, file_format)).pixels
        expected = np.rint(180.0 * opacity / 255)
        assert pixels.ndim == (2 if mode == "LA" else 3)
        np.testing.assert_allclose(pixels if mode == "LA" else pixels[..., 1], expected, atol=1)

    def test_cmyk_jpeg_becomes_rgb(self) -> None:
        colours = Image.new("RGB", (16, 16), (200, 60, 30)).convert("CMYK")
        pixels = decode_image(encode(colours, "JPEG", quality=100)).pixels
        assert pixels.shape == (16, 16, 3)
        np.testing.assert_allclose(pixels.reshape(-1, 3).mean(axis=0), (200, 60, 30), atol=3)

    @pytest.mark.parametrize("orientation", sorted(UPRIGHT))
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    def test_orientation_is_applied(self, file_format: str, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        for stored in (GREY8, GREY16):
            image = decode_image(encode(stored, file_format, exif=exif))
            np.testing.assert_array_equal(image.pixels, UPRIGHT[orientation](stored))

    def test_jpeg_orientation_swaps_height_and_width(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = decode_image(encode(np.zeros((20, 40), np.uint8), "JPEG", exif=exif))
        assert (image.height, image.width) == (40, 20)

    def test_float_tiff_in_unit_range_is_kept_with_sixteen_bits(self) -> None:
        values = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
        pixels = decode_image(encode(values, "TIFF")).pixels
        np.testing.assert_array_equal(pixels, [[0, 16_384], [32_768, 65_535]])

    def test_the_first_picture_of_a_multi_picture_jpeg_is_the_photograph(self) -> None:
        first, preview = Image.new("L", (32, 24), 200), Image.new("L", (8, 6), 10)
        image = decode_image(encode(first, "MPO", save_all=True, append_images=[preview]))
        assert (image.height, image.width) == (24, 32)
        assert image.pixels.mean() == pytest.approx(200, abs=1)

    def test_digest_is_of_the_file_bytes(self, tmp_path: Path) -> None:
        content = encode(RGB, "PNG")
        path = tmp_path / "a.png"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        assert decode_image(content).digest == digest
        assert decode_image(path).digest == digest
        assert decode_image(str(path)).digest == digest

    def test_a_jpeg_named_png_is_read_by_content(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        path.write_bytes(encode(RGB, "JPEG"))
        assert decode_image(path).format == "JPEG"


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "file is empty"),
            (b"image,label\na.png,1\n", "not a readable PNG"),
            (b"\x89PNG\r\n\x1a\n", "not a readable PNG"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a readable PNG"),
            (b"P5 2 2 255\n\x00\x01\x02\x03", "not a readable PNG"),
            (png_header(1, 1), "1x1 pixels, expected at least 2"),
            (png_header(1, 500), "1x500 pixels, expected at least 2"),
            (png_header(0, 5), "not a readable PNG|0x5 pixels"),
            (png_header(60_000, 60_000), "more than 89478485 pixels"),
            (png_header(10_000, 10_000), "10000x10000 is more than 89478485 pixels"),
        ],
        ids=["empty", "text", "signature", "eps", "pgm", "one", "thin", "zero", "bomb", "large"],
    )
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_what_is_no_usable_image(self, content: bytes, reason: str) -> None:
        with pytest.raises(ImageError, match=reason):
            decode_image(content)

    def test_a_warning_turned_into_an_error_is_still_a_reason(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageError, match="more than 89478485 pixels"):
                decode_image(png_header(10_000, 10_000))

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
    def test_no_prefix_of_a_file_passes_for_the_whole(self, file_format: str) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        content = encode(noise, file_format)
        for share in (0.05, 0.3, 0.6, 0.9):
            with pytest.raises(ImageError, match=r"truncated or damaged|not a readable"):
                decode_image(content[: int(share * len(content))])

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
    @pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
    def test_damaged_bytes_raise_nothing_but_image_errors(self, file_format: str) -> None:
        content = encode(RGB, file_format)
        random = np.random.default_rng(2)
        refused = 0
        for _ in range(300):
            damaged = bytearray(content)
            for position in random.integers(0, min(len(content), 300), 3):
                damaged[position] = random.integers(0, 256)
            try:
                decode_image(bytes(damaged), limits=DecodeLimits(max_pixels=10_000))
            except ImageError:
                refused += 1
        assert refused > 0

    @pytest.mark.parametrize(
        ("file_format", "options"), [("TIFF", {}), ("GIF", {"duration": 50}), ("PNG", {}), ("WEBP", {"duration": 50})]
    )
    def test_files_with_several_images(self, file_format: str, options: dict[str, Any]) -> None:
        pages = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
        content = encode(pages[0], file_format, save_all=True, append_images=pages[1:], **options)
        with pytest.raises(ImageError, match=f"{file_format} file with more than one image"):
            decode_image(content)

    def test_a_real_multi_page_tiff(self) -> None:
        with pytest.raises(ImageError, match="TIFF file with more than one image"):
            decode_image(Path(skimage.__file__).parent / "data" / "multipage.tif")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (1.5, "outside"), (-0.1, "outside")],
    )
    def test_floating_point_tiff_without_a_known_scale(self, value: float, reason: str) -> None:
        values = np.full((3, 3), 0.5, np.float32)
        values[1, 2] = value
        with pytest.raises(ImageError, match=reason):
            decode_image(encode(values, "TIFF"))

    def test_thirty_two_bit_integers_have_no_known_scale(self) -> None:
        with pytest.raises(ImageError, match="int32 pixels, which have no known full scale"):
            decode_image(encode(GREY8.astype(np.int32), "TIFF"))

    def test_unsupported_pixel_modes_are_named(self) -> None:
        with pytest.raises(ImageError, match="LAB pixels are not supported"):
            decode_image(encode(Image.new("LAB", (4, 4)), "TIFF"))

    def test_paths_that_hold_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        cases = {
            "absent.png": "file not found",
            ".": "not a regular file",
            "pipe.png": "not a regular file",
            "loop.png": "file cannot be read",
            "a\0b.png": "file (cannot be read|not found)",
            "x" * 300 + ".png": "file cannot be read",
        }
        for name, reason in cases.items():
            with pytest.raises(ImageError, match=reason) as refusal:
                decode_image(f"{tmp_path}/{name}")
            assert str(tmp_path) not in str(refusal.value)

    def test_reasons_are_short_and_name_no_path(self, tmp_path: Path) -> None:
        path = tmp_path / "patient-name.png"
        path.write_bytes(encode(RGB, "PNG")[:60])
        with pytest.raises(ImageError) as refusal:
            decode_image(path)
        assert "patient" not in str(refusal.value)
        assert len(str(refusal.value)) < 80

    def test_truncated_images_never_pass_because_of_a_global_flag(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
            decode_image(encode(RGB, "PNG"))

    def test_other_sources_are_a_programming_error(self) -> None:
        with pytest.raises(TypeError, match="Expected `source` to be a path or bytes, but got int"):
            decode_image(3)  # type: ignore[arg-type]


class TestLimits:
    def test_pixels_bytes_and_side_just_inside_and_just_outside(self, tmp_path: Path) -> None:
        content = encode(RGB, "PNG")
        path = tmp_path / "a.png"
        path.write_bytes(content)
        inside = DecodeLimits(max_pixels=35, max_bytes=len(content), min_side=5)
        assert decode_image(path, limits=inside).width == 7
        for name, value, reason in (
            ("max_pixels", 34, "7x5 is more than 34 pixels"),
            ("max_bytes", len(content) - 1, f"larger than {len(content) - 1} bytes"),
            ("min_side", 6, "expected at least 6"),
        ):
            limits = dataclasses.replace(inside, **{name: value})
            for source in (path, content):
                with pytest.raises(ImageError, match=reason):
                    decode_image(source, limits=limits)

    def test_the_pixel_limit_holds_before_anything_is_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def decoded(self: Image.Image) -> None:
            raise AssertionError("pixels were decoded")

        content = encode(RGB, "PNG")
        monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
        with pytest.raises(ImageError, match="more than 10 pixels"):
            decode_image(content, limits=DecodeLimits(max_pixels=10))

    @pytest.mark.parametrize("name", ["max_pixels", "max_bytes", "min_side"])
    def test_limits_are_positive(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"Expected `{name}` to be at least 1, but got 0"):
            DecodeLimits(**{name: 0})

    def test_pillows_own_limit_is_left_alone(self) -> None:
        before = Image.MAX_IMAGE_PIXELS
        decode_image(encode(RGB, "PNG"), limits=DecodeLimits(max_pixels=10**9))
        assert before == Image.MAX_IMAGE_PIXELS


class TestDecodedImage:
    def test_to_float_divides_by_the_full_scale(self) -> None:
        eight = image_from_array(np.array([[0, 51], [255, 102]], np.uint8)).to_float()
        sixteen = image_from_array(np.array([[0, 13_107], [65_535, 26_214]], np.uint16)).to_float()
        for values in (eight, sixteen):
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values[..., 0], np.float32([[0, 0.2], [1, 0.4]]))
        assert image_from_array(RGB).to_float().shape == (5, 7, 3)

    def test_to_rgb8_rounds_sixteen_bits(self) -> None:
        shown = image_from_array(np.array([[0, 128], [129, 65_535]], np.uint16)).to_rgb8()
        assert shown.dtype == np.uint8
        assert shown[..., 1].tolist() == [[0, 0], [1, 255]]

    def test_pixels_cannot_be_changed(self) -> None:
        for image in (image_from_array(RGB), decode_image(encode(RGB, "PNG")), decode_image(encode(GREY16, "TIFF"))):
            with pytest.raises(ValueError, match="read-only"):
                image.pixels[0, 0] = 1


class TestImageFromArray:
    @pytest.mark.parametrize("values", [GREY8, GREY16, RGB, RGB.astype(np.uint16) * 257])
    def test_integers_are_kept_and_copied(self, values: np.ndarray) -> None:
        source = values.copy()
        image = image_from_array(source)
        source[:] = 0
        assert image.format == "array"
        np.testing.assert_array_equal(image.pixels, values)

    def test_a_single_channel_axis_is_dropped(self) -> None:
        assert image_from_array(GREY8[..., None]).pixels.shape == (4, 6)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_floats_are_kept_with_sixteen_bits(self, kind: type) -> None:
        pixels = image_from_array(np.array([[0, 0.5], [0.25, 1]], kind)).pixels
        np.testing.assert_array_equal(pixels, [[0, 32_768], [16_384, 65_535]])

    def test_byte_order_does_not_matter(self) -> None:
        native, swapped = image_from_array(GREY16), image_from_array(GREY16.astype(">u2"))
        np.testing.assert_array_equal(native.pixels, swapped.pixels)
        assert native.digest == swapped.digest

    def test_digest_depends_on_type_shape_and_pixels(self) -> None:
        variants = [GREY8, GREY8.T.copy(), GREY8.reshape(6, 4), GREY8.astype(np.uint16), GREY8 + 1]
        assert len({image_from_array(values).digest for values in variants}) == len(variants)

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            (np.zeros(4), r"array of shape \(4,\)"),
            (np.zeros((4, 4, 4), np.uint8), r"array of shape \(4, 4, 4\)"),
            (np.zeros((2, 4, 4, 3), np.uint8), "expected"),
            (np.zeros((0, 4), np.uint8), "4x0 pixels"),
            (np.zeros((1, 4), np.uint8), "4x1 pixels"),
            (np.zeros((4, 4), np.int64), "int64 pixels"),
            (np.zeros((4, 4), bool), "bool pixels"),
            (np.full((4, 4), np.nan), "NaN"),
            (np.full((4, 4), 1.001), "outside"),
            (np.full((4, 4), -0.001), "outside"),
        ],
    )
    def test_refusals(self, values: np.ndarray, reason: str) -> None:
        with pytest.raises(ImageError, match=reason):
            image_from_array(values)

    def test_limits_hold_for_arrays_too(self) -> None:
        with pytest.raises(ImageError, match="7x5 is more than 34 pixels"):
            image_from_array(RGB, limits=DecodeLimits(max_pixels=34))


class TestRealImages:
    def test_chest_radiographs_are_grey_and_fundus_photographs_are_colour(self, shared_data: Path) -> None:
        radiograph = decode_image(next(iter(sorted((shared_data / "rsna_samples").glob("*.png")))))
        fundus = decode_image(next(iter(sorted((shared_data / "fundus_samples").glob("*.png")))))
        assert radiograph.pixels.shape == (1024, 1024)
        assert fundus.pixels.shape == (512, 512, 3)

    def test_pillow_agrees_on_a_real_photograph(self) -> None:
        path = Path(skimage.__file__).parent / "data" / "retina.jpg"
        image = decode_image(path)
        assert isinstance(image, DecodedImage)
        with Image.open(path) as reference:
            np.testing.assert_array_equal(image.pixels, np.asarray(reference.convert("RGB")))


class TestReduction:
    BLOCKS = np.kron(np.arange(10, 250, 10, dtype=np.uint8).reshape(4, 6), np.ones((16, 16), np.uint8))
    """(64, 96): 4 x 6 even squares, each of four blocks of the JPEG."""

    @pytest.mark.parametrize(
        ("least_side", "factor"), [(64, 1), (33, 1), (32, 2), (17, 2), (16, 4), (9, 4), (8, 8), (1, 8), (1000, 1)]
    )
    def test_is_the_largest_that_leaves_the_side(self, least_side: int, factor: int) -> None:
        content = encode(self.BLOCKS, "JPEG", quality=95)
        image = decode_image(content, least_side=least_side)
        assert (image.reduction, image.full_size) == (factor, (64, 96))
        assert (image.height, image.width) == (64 // factor, 96 // factor)
        assert image.digest == hashlib.sha256(content).hexdigest()
        np.testing.assert_allclose(image.pixels.astype(int), self.BLOCKS[::factor, ::factor], atol=2)

    def test_averages_neighbours(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)))
        content = encode(smooth, "JPEG", quality=95, subsampling=0)
        whole = decode_image(content).pixels.astype(float)
        halves = decode_image(content, least_side=32).pixels
        assert halves.shape == (32, 32, 3)
        np.testing.assert_allclose(halves, whole.reshape(32, 2, 32, 2, 3).mean((1, 3)), atol=4)

    @pytest.mark.parametrize(("size", "reduced"), [((65, 97), (33, 49)), ((79, 66), (40, 33))])
    def test_a_rest_keeps_its_own_pixel(self, size: tuple[int, int], reduced: tuple[int, int]) -> None:
        image = decode_image(encode(np.full(size, 90, np.uint8), "JPEG"), least_side=32)
        assert (image.reduction, image.full_size, image.pixels.shape) == (2, size, reduced)

    @pytest.mark.parametrize("orientation", sorted(UPRIGHT))
    def test_orientation_is_applied_to_both_sizes(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encode(self.BLOCKS, "JPEG", quality=95, exif=exif)
        image = decode_image(content, least_side=32)
        upright = UPRIGHT[orientation](self.BLOCKS)
        assert image.full_size == upright.shape
        np.testing.assert_allclose(image.pixels.astype(int), UPRIGHT[orientation](self.BLOCKS[::2, ::2]), atol=2)

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "WEBP"])
    def test_other_formats_keep_every_pixel(self, file_format: str) -> None:
        image = decode_image(encode(self.BLOCKS, file_format), least_side=8)
        assert (image.reduction, image.full_size, image.pixels.shape[:2]) == (1, (64, 96), (64, 96))

    def test_limits_are_those_of_the_original(self) -> None:
        with pytest.raises(ImageError, match="96x64 is more than 5000 pixels"):
            decode_image(encode(self.BLOCKS, "JPEG"), least_side=8, limits=DecodeLimits(max_pixels=5000))

    def test_a_cut_file_is_damaged_at_any_scale(self) -> None:
        content = encode(np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8), "JPEG")
        with pytest.raises(ImageError, match="truncated or damaged"):
            decode_image(content[: len(content) // 2], least_side=8)
