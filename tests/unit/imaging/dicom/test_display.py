"""Values by hand: what a viewer shows of a few stored ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from softcam.errors import ImageError
from softcam.imaging import decode_image

BYTES = np.array([[0, 1, 2], [127, 128, 255]], np.uint8)
WORDS = np.array([[0, 100, 200], [300, 400, 1000]], np.uint16)
SIGNED = np.array([[-1000, -500, 0], [250, 500, 1000]], np.int16)

Make = Callable[..., bytes]
FULL = 65535


def show(content: bytes) -> np.ndarray:
    return decode_image(content).pixels


def expect(values: Any) -> np.ndarray:
    return np.rint(np.array(values) * FULL).astype(np.uint16)


def test_eight_bits_come_back_as_stored(make_dicom: Make) -> None:
    pixels = show(make_dicom(BYTES))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, BYTES)


def test_eight_bits_of_a_narrow_range_are_not_stretched(make_dicom: Make) -> None:
    np.testing.assert_array_equal(show(make_dicom(BYTES // 4 + 50)), BYTES // 4 + 50)


def test_seven_bits_are_spread_to_white(make_dicom: Make) -> None:
    pixels = show(make_dicom(BYTES // 2, BitsStored=7))
    np.testing.assert_array_equal(pixels, expect(BYTES // 2 / 127))


def test_one_bit_is_black_and_white(make_dicom: Make) -> None:
    packed = np.packbits([0, 1, 1, 0, 1, 0, 0, 0], bitorder="little").tobytes() + b"\0"
    content = make_dicom(BYTES, BitsAllocated=1, BitsStored=1, PixelData=packed)
    np.testing.assert_array_equal(show(content), [[0, 255, 255], [0, 255, 0]])


@pytest.mark.parametrize("pixels", [WORDS, SIGNED])
def test_more_bits_go_from_the_least_to_the_greatest_value(make_dicom: Make, pixels: np.ndarray) -> None:
    low, high = int(pixels.min()), int(pixels.max())
    np.testing.assert_array_equal(show(make_dicom(pixels)), expect((pixels.astype(float) - low) / (high - low)))


def test_signed_bytes_go_over_their_range(make_dicom: Make) -> None:
    pixels = np.array([[-128, -1, 0], [1, 64, 127]], np.int8)
    np.testing.assert_array_equal(show(make_dicom(pixels)), pixels.astype(int) + 128)


def test_an_even_image_is_black(make_dicom: Make) -> None:
    assert show(make_dicom(np.full((2, 3), 700, np.uint16))).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("pixels", [BYTES, WORDS, SIGNED])
@pytest.mark.parametrize("elements", [{}, {"WindowCenter": 140, "WindowWidth": 133.5}])
def test_monochrome1_is_the_exact_negative(make_dicom: Make, pixels: np.ndarray, elements: dict[str, Any]) -> None:
    twin = show(make_dicom(pixels, **elements)).astype(int)
    negative = show(make_dicom(pixels, PhotometricInterpretation="MONOCHROME1", **elements))
    np.testing.assert_array_equal(negative, np.iinfo(negative.dtype).max - twin)
    shape = show(make_dicom(pixels, PresentationLUTShape="INVERSE", **elements))
    np.testing.assert_array_equal(shape, negative)
    both = {"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"}
    np.testing.assert_array_equal(show(make_dicom(pixels, **both, **elements)), negative)


def test_rescaling_alone_changes_no_order(make_dicom: Make) -> None:
    np.testing.assert_array_equal(show(make_dicom(BYTES, RescaleSlope=3, RescaleIntercept=-7)), BYTES)
    np.testing.assert_array_equal(show(make_dicom(BYTES, RescaleSlope=-1, RescaleIntercept=0)), 255 - BYTES)
    falling = show(make_dicom(WORDS, RescaleSlope=-2, RescaleIntercept=9))
    np.testing.assert_array_equal(falling, expect((1000 - WORDS.astype(float)) / 1000))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # PS3.3 C.11.2.1.2: ((x - (c - 0.5)) / (w - 1) + 0.5), x = 2 * stored - 100, c = 300, w = 401
        ("LINEAR", [0, 0.00125, 0.50125, 1, 1, 1]),
        (None, [0, 0.00125, 0.50125, 1, 1, 1]),
        ("LINEAR_EXACT", [0, (100 - 300) / 401 + 0.5, 0.5, (500 - 300) / 401 + 0.5, 1, 1]),
        ("SIGMOID", [1 / (1 + np.exp(-4 * (x - 300) / 401)) for x in (-100, 100, 300, 500, 700, 1900)]),
    ],
)
def test_windows_are_over_rescaled_values(make_dicom: Make, function: str | None, expected: list[float]) -> None:
    elements = {"VOILUTFunction": function} if function else {}
    content = make_dicom(
        WORDS, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[300, 1], WindowWidth=[401, 2], **elements
    )
    np.testing.assert_array_equal(show(content), expect(np.reshape(expected, (2, 3))))


def test_a_window_of_one_value_is_a_threshold(make_dicom: Make) -> None:
    content = make_dicom(WORDS, WindowCenter=200.5, WindowWidth=1)
    np.testing.assert_array_equal(show(content), [[0, 0, 0], [255, 255, 255]])


@pytest.mark.parametrize("elements", [{"WindowCenter": 100}, {"WindowCenter": 100, "WindowWidth": 0}])
def test_a_window_that_is_none_is_left_out(make_dicom: Make, elements: dict[str, Any]) -> None:
    np.testing.assert_array_equal(show(make_dicom(WORDS, **elements)), show(make_dicom(WORDS)))


def test_an_extreme_sigmoid_does_not_overflow(make_dicom: Make) -> None:
    content = make_dicom(WORDS, WindowCenter=200, WindowWidth=0.001, VOILUTFunction="SIGMOID")
    np.testing.assert_array_equal(show(content), expect([[0, 0, 0.5], [1, 1, 1]]))


def test_an_unknown_function_is_refused(make_dicom: Make) -> None:
    with pytest.raises(ImageError, match="VOILUTFunction is unknown"):
        show(make_dicom(WORDS, WindowCenter=1, WindowWidth=2, VOILUTFunction="CUBIC"))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_tables_of_values_of_interest(make_dicom: Make, make_item: Callable[..., Any], syntax: str) -> None:
    table = make_item(LUTDescriptor=[3, 100, 12], LUTData=[0, 2047, 4095])
    table["LUTData"].VR = "US"
    content = make_dicom(WORDS // 100 + 99, syntax=syntax, VOILUTSequence=[table], WindowCenter=5, WindowWidth=9)
    expected = np.array([[0, 0, 2047], [4095, 4095, 4095]]) / 4095  # the first before, the last behind
    np.testing.assert_array_equal(show(content), expect(expected))


def test_a_table_of_the_device_comes_before_the_window(make_dicom: Make, make_item: Callable[..., Any]) -> None:
    table = make_item(LUTDescriptor=[4, 0, 16], LUTData=[1000, 30, 20, 10], ModalityLUTType="US")
    table["LUTData"].VR = "US"
    pixels = np.array([[0, 1], [2, 3]], np.uint8)
    content = make_dicom(pixels, ModalityLUTSequence=[table], WindowCenter=20.5, WindowWidth=21)
    np.testing.assert_array_equal(show(content), expect([[1, 1], [0.5, 0]]))


def test_padding_is_black_and_no_part_of_the_range(make_dicom: Make) -> None:
    pixels = np.array([[-2000, 0, 50], [100, -2000, 25]], np.int16)
    expected = [[0, 0, 0.5], [1, 0, 0.25]]
    np.testing.assert_array_equal(show(make_dicom(pixels, PixelPaddingValue=-2000)), expect(expected))
    negative = make_dicom(pixels, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(show(negative), [[0, FULL, FULL - 32768], [0, 0, FULL - 16384]])
    ranged = make_dicom(pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=10)
    np.testing.assert_array_equal(show(ranged), expect([[0, 0, 25 / 75], [1, 0, 0]]))


def test_palettes_become_colours(make_dicom: Make) -> None:
    table = {"Red": [10, 200], "Green": [20, 100], "Blue": [30, 50]}
    pixels = np.array([[4, 5], [6, 0]], np.uint8)
    for bits, kind, scale in ((8, np.uint8, 1), (16, "<u2", 257), (16, "<u2", 1)):
        elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for colour, values in table.items():
            elements[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 5, bits]
            elements[f"{colour}PaletteColorLookupTableData"] = (np.array(values) * scale).astype(kind).tobytes()
        shown = show(make_dicom(pixels, **elements))
        assert shown.dtype == np.uint8
        assert shown.tolist() == [[[10, 20, 30], [10, 20, 30]], [[200, 100, 50], [10, 20, 30]]]


def test_segmented_palettes_are_expanded(make_dicom: Make) -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [6, 0, 16]
        # two discrete entries, then four on a line to 41120
        words = np.array([0, 2, 0, 257, 1, 4, 257 * 5], "<u2")
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = words.tobytes()
    pixels = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    np.testing.assert_array_equal(show(make_dicom(pixels, **elements))[..., 0], [[0, 1, 2], [3, 4, 5]])
    elements["SegmentedRedPaletteColorLookupTableData"] = np.array([2, 1, 0, 0], "<u2").tobytes()
    with pytest.raises(ImageError, match="indirect segments, which are not supported"):
        show(make_dicom(pixels, **elements))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"RedPaletteColorLookupTableData": None}, "palette is missing"),
        ({"RedPaletteColorLookupTableDescriptor": [2, 0, 32]}, "RedPaletteColorLookupTableDescriptor is damaged"),
        ({"RedPaletteColorLookupTableDescriptor": [9, 0, 8]}, "look-up table is shorter than it says"),
        (
            {"RedPaletteColorLookupTableData": None, "SegmentedRedPaletteColorLookupTableData": b"\0\3\1\1\1\0"},
            "damaged",
        ),
        ({"RedPaletteColorLookupTableData": None, "SegmentedRedPaletteColorLookupTableData": b"\0\1\7\0"}, "damaged"),
    ],
)
def test_damaged_palettes_are_refused(make_dicom: Make, changes: dict[str, Any], reason: str) -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = b"\1\2"
    assert show(make_dicom(BYTES, **elements)).ndim == 3
    elements = {name: value for name, value in {**elements, **changes}.items() if value is not None}
    with pytest.raises(ImageError, match=reason):
        show(make_dicom(BYTES, **elements))


def test_segments_that_never_end_are_cut_off(make_dicom: Make) -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [0, 0, 16]
        # An indirect segment follows, which is not reached.
        words = [0, 1, 7, *[1, 60_000, 9] * 2, 2, 1]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = np.array(words, "<u2").tobytes()
    with pytest.raises(ImageError, match=r"palette is damaged$"):
        show(make_dicom(BYTES, **elements))


def test_colours_keep_their_bits(make_dicom: Make) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    np.testing.assert_array_equal(show(make_dicom(colours)), colours)
    deep = np.random.default_rng(0).integers(0, 65536, (2, 3, 3), dtype=np.uint16)
    np.testing.assert_array_equal(show(make_dicom(deep)), deep)
    np.testing.assert_array_equal(show(make_dicom(deep // 16, BitsStored=12)), expect(deep // 16 / 4095))
    planes = make_dicom(colours, PlanarConfiguration=1, PixelData=np.moveaxis(colours, 2, 0).tobytes())
    np.testing.assert_array_equal(show(planes), colours)


def test_ybr_becomes_rgb(make_dicom: Make) -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [128, 128, 128]]], np.uint8)
    ybr = np.array([[[76, 85, 255], [150, 44, 21]], [[29, 255, 107], [128, 128, 128]]], np.uint8)
    shown = show(make_dicom(ybr, PhotometricInterpretation="YBR_FULL")).astype(int)
    assert np.abs(shown - rgb).max() <= 2


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": "HSV"}, "1 samples of HSV are not supported"),
        ({"PhotometricInterpretation": "MARKED"}, "1 samples of an unknown kind are not supported"),
        ({"BitsStored": 9}, "9 bits stored of 8"),
        ({"HighBit": 6}, "samples that do not begin at the lowest bit are not supported"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is neither 0 nor 1"),
        ({"Rows": 1}, "3x1 pixels, expected at least 2"),
        ({"Rows": 60_000, "Columns": 60_000}, "60000x60000 is more than 89478485 pixels"),
        ({"NumberOfFrames": 10_001}, "file with more than 10000 images"),
        ({"WindowCenter": "1e400", "WindowWidth": 2}, "WindowCenter is not finite|damaged"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "RedPaletteColorLookupTableDescriptor is missing or damaged"),
        ({"PixelData": b"\0\0"}, "truncated or damaged"),
    ],
)
def test_what_cannot_be_shown_is_refused(make_dicom: Make, elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as refusal:
        decode_image(make_dicom(BYTES, **elements), frame=1)
    assert "MARKED" not in str(refusal.value)
