"""Every way to store pixels gives the same pixels."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from softcam.errors import ImageError
from softcam.imaging import DecodeLimits, count_frames, decode_image

pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")

RANDOM = np.random.default_rng(0)
SMOOTH = np.add.outer(np.arange(40), np.arange(0, 96, 2)).astype(np.uint8)
DEEP = (SMOOTH.astype(np.int16) * 20 - 1000).astype(np.int16)

LITTLE, BIG, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG, JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"

Make = Callable[..., bytes]


def wrap(content: bytes) -> bytes:
    return pydicom.encaps.encapsulate([content])


def replace_pixels(content: bytes, syntax: str, pixels: bytes) -> bytes:
    """Exchange the pixel data by compressed ones."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = wrap(pixels)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset)
    return stream.getvalue()


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


@pytest.mark.parametrize("pixels", [SMOOTH, SMOOTH.astype(np.uint16) * 9, DEEP], ids=["8", "16", "signed"])
@pytest.mark.parametrize(
    ("syntax", "codec"),
    [
        *((syntax, "") for syntax in (BIG, IMPLICIT, DEFLATED)),
        (RLE, "pydicom"),
        (JPEG_2000, "pylibjpeg"),
        (JPEG_LS, "pyjpegls"),
    ],
    ids=["big", "implicit", "deflated", "RLE", "JPEG 2000", "JPEG-LS"],
)
def test_lossless_ways_give_the_same_pixels(make_dicom: Make, pixels: np.ndarray, syntax: str, codec: str) -> None:
    if codec == "pyjpegls":
        pytest.importorskip("jpeg_ls", reason="only what writes JPEG-LS for this test is absent")
    plain = decode_image(make_dicom(pixels, RescaleIntercept=-7, RescaleSlope=2)).pixels
    image = decode_image(make_dicom(pixels, syntax=syntax, codec=codec, RescaleIntercept=-7, RescaleSlope=2))
    np.testing.assert_array_equal(image.pixels, plain)
    assert plain.std() > 10


def test_grey_jpeg_is_what_pillow_gives(make_dicom: Make) -> None:
    content = jpeg(SMOOTH)
    image = decode_image(replace_pixels(make_dicom(SMOOTH), JPEG, content))
    np.testing.assert_array_equal(image.pixels, np.asarray(Image.open(io.BytesIO(content))))
    assert np.abs(image.pixels.astype(int) - SMOOTH).max() <= 4


def test_colour_jpeg_becomes_rgb(make_dicom: Make) -> None:
    colours = np.stack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH], axis=2)
    content = make_dicom(colours, PhotometricInterpretation="YBR_FULL_422")
    shown = decode_image(replace_pixels(content, JPEG, jpeg(colours, subsampling=0))).pixels
    assert np.abs(shown.astype(int) - colours).max() <= 12


@pytest.mark.parametrize("syntax", [JPEG, JPEG_2000, JPEG_LS])
def test_a_codestream_of_another_size_is_never_decoded(make_dicom: Make, syntax: str) -> None:
    content = jpeg(np.zeros((64, 64), np.uint8))
    if syntax == JPEG_2000:
        stream = io.BytesIO()
        Image.new("L", (64, 64)).save(stream, "JPEG2000", no_jp2=True)
        content = stream.getvalue()
    with pytest.raises(ImageError, match="header and compressed pixels differ in size"):
        decode_image(replace_pixels(make_dicom(SMOOTH), syntax, content))


def test_boxes_without_end_do_not_hang(make_dicom: Make) -> None:
    endless = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 0, b"free") + bytes(64)
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode_image(replace_pixels(make_dicom(SMOOTH), JPEG_2000, endless))


def test_transfer_syntaxes_that_are_not_supported_are_named(make_dicom: Make) -> None:
    content = replace_pixels(make_dicom(SMOOTH), "1.2.840.10008.1.2.4.102", b"video")
    with pytest.raises(ImageError, match=r"stored as MPEG-4 AVC/H\.264 High Profile / Level 4\.1 are not supported"):
        decode_image(content)
    private = replace_pixels(make_dicom(SMOOTH), "1.2.3.4.5", b"private")
    with pytest.raises(ImageError, match="stored as an unknown transfer syntax are not supported"):
        decode_image(private)


def test_a_deflated_bomb_is_not_unpacked(make_dicom: Make) -> None:
    content = make_dicom(np.zeros((1000, 1000), np.uint8), syntax=DEFLATED)
    assert len(content) < 4000
    assert decode_image(content, limits=DecodeLimits(max_bytes=2_000_000)).width == 1000
    with pytest.raises(ImageError, match="truncated or unpack to more than 900000 bytes"):
        decode_image(content, limits=DecodeLimits(max_bytes=900_000))


def test_frames_are_counted_and_chosen(make_dicom: Make, tmp_path: Path) -> None:
    frames = RANDOM.integers(0, 256, (3, 8, 9), dtype=np.uint8)
    (tmp_path / "cine").write_bytes(make_dicom(frames, syntax=RLE, codec="pydicom"))
    for source in (tmp_path / "cine", str(tmp_path / "cine"), (tmp_path / "cine").read_bytes()):
        assert count_frames(source) == 3
        for number in (1, 2, 3):
            image = decode_image(source, frame=number)
            np.testing.assert_array_equal(image.pixels, frames[number - 1])
            assert image.frame == number
    with (tmp_path / "cine").open("rb") as stream:
        assert count_frames(stream) == 3


def test_the_number_of_frames_is_limited(make_dicom: Make) -> None:
    content = make_dicom(np.zeros((3, 8, 9), np.uint8))
    limits = DecodeLimits(max_frames=3)
    assert count_frames(content, limits=limits) == 3
    with pytest.raises(ImageError, match="file with more than 2 images"):
        count_frames(content, limits=dataclasses.replace(limits, max_frames=2))


def test_other_formats_hold_one_image_that_is_chosen_by_number() -> None:
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, "PNG")
    assert count_frames(stream.getvalue()) == 1
    assert decode_image(stream.getvalue(), frame=1).frame is None
    with pytest.raises(ImageError, match="frame 2 of a file that is not DICOM"):
        decode_image(stream.getvalue(), frame=2)


def test_data_sets_without_preamble_are_known(make_dicom: Make) -> None:
    for syntax in (LITTLE, IMPLICIT, BIG):
        content = make_dicom(SMOOTH, syntax=syntax)
        dataset = pydicom.dcmread(io.BytesIO(content))
        stream = io.BytesIO()
        little, implicit = syntax != BIG, syntax == IMPLICIT
        writer = pydicom.filebase.DicomFileLike(stream)
        writer.is_little_endian, writer.is_implicit_VR = little, implicit
        pydicom.filewriter.write_dataset(writer, dataset)
        np.testing.assert_array_equal(decode_image(stream.getvalue()).pixels, SMOOTH)
        np.testing.assert_array_equal(decode_image(content[128 + 4 :]).pixels, SMOOTH)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"NominalScannedPixelSpacing": [0.4, 0.3]}, (0.4, 0.3)),
        ({"PixelSpacing": [0.5, 0.25], "ImagerPixelSpacing": [0.2, 0.1]}, (0.5, 0.25)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"PixelSpacing": [-1, 1]}, None),
    ],
)
def test_spacing_is_between_rows_then_between_columns(make_dicom: Make, elements: Any, expected: Any) -> None:
    assert decode_image(make_dicom(SMOOTH, **elements)).spacing == expected


def test_functional_groups_hold_for_their_frame(make_dicom: Make, make_item: Callable[..., Any]) -> None:
    frames = np.stack([DEEP, DEEP])
    shared = make_item(
        PixelMeasuresSequence=[make_item(PixelSpacing=[2, 3])],
        PixelValueTransformationSequence=[make_item(RescaleSlope=1, RescaleIntercept=1000, RescaleType="US")],
    )
    own = [
        make_item(FrameVOILUTSequence=[make_item(WindowCenter=center, WindowWidth=401)]) for center in (200.5, 1000.5)
    ]
    content = make_dicom(frames, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=own)
    for number, low in ((1, 0), (2, 800)):
        image = decode_image(content, frame=number)
        expected = np.clip((DEEP + 1000.0 - low) / 400, 0, 1)
        np.testing.assert_allclose(image.pixels, expected * 65535, rtol=0, atol=1)
        assert image.spacing == (2, 3)


def test_overlays_are_not_burned_in(make_dicom: Make) -> None:
    plane = {0x60000010: ("US", 40), 0x60000011: ("US", 48), 0x60000040: ("CS", "G"), 0x60000050: ("SS", [1, 1])}
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(SMOOTH)))
    for tag, (kind, value) in (plane | {0x60003000: ("OW", b"\xff" * 240)}).items():
        dataset.add_new(tag, kind, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset)
    np.testing.assert_array_equal(decode_image(stream.getvalue()).pixels, SMOOTH)
    hidden = SMOOTH.astype(np.uint16) * 8 + np.uint16(0x8000)  # an overlay in the highest bit
    shown = decode_image(make_dicom(hidden, BitsStored=12)).pixels
    np.testing.assert_array_equal(shown, decode_image(make_dicom(hidden & 0xFFF, BitsStored=12)).pixels)


def test_no_prefix_of_a_file_passes_for_the_whole(make_dicom: Make) -> None:
    noise = RANDOM.integers(0, 256, (40, 48), dtype=np.uint8)
    contents = [make_dicom(noise), make_dicom(noise, syntax=RLE, codec="pydicom")]
    contents += [make_dicom(noise, syntax=DEFLATED), replace_pixels(make_dicom(noise), JPEG, jpeg(noise))]
    for content in contents:
        for share in (0.1, 0.3, 0.6, 0.9):
            with pytest.raises(ImageError):
                decode_image(content[: int(share * len(content))])


def test_damaged_bytes_raise_nothing_but_image_errors(make_dicom: Make, test_files: Path) -> None:
    names = ("693_J2KI.dcm", "JPEGLSNearLossless_16.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_gdcm.dcm", "image_dfl.dcm")
    contents = [(test_files / name).read_bytes() for name in (*names, "SC_rgb_small_odd_jpeg.dcm", "badVR.dcm")]
    contents += [make_dicom(np.stack([SMOOTH] * 3)), replace_pixels(make_dicom(SMOOTH), JPEG, jpeg(SMOOTH))]
    random = np.random.default_rng(3)
    reasons, shown = [], 0
    for content in contents * 60:
        damaged = bytearray(content)
        for position in random.integers(128, min(len(content), 1800) if random.random() < 0.6 else len(content), 4):
            damaged[position] = random.integers(0, 256)
        cut = len(content) if random.random() < 0.7 else random.integers(140, len(content))
        try:
            decode_image(bytes(damaged[:cut]), limits=DecodeLimits(max_pixels=1_000_000), frame=1)
            shown += 1
        except ImageError as error:
            reasons.append(str(error))
    assert min(len(reasons), shown) > 30
    assert max(map(len, reasons)) < 100


def test_the_pixel_limit_holds_before_anything_is_decoded(make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softcam.imaging.dicom.file.read_pixels", None)
    with pytest.raises(ImageError, match="48x40 is more than 1919 pixels"):
        decode_image(make_dicom(SMOOTH), limits=DecodeLimits(max_pixels=1919))
