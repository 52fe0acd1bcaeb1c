"""Every file that comes with pydicom is a right picture or refused by name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from softcam.errors import ImageError
from softcam.imaging import count_frames, decode_image

pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())

DAMAGED = "DICOM data are truncated or damaged"
FOREIGN = "not a readable PNG, JPEG, TIFF, BMP, WebP, GIF or DICOM image"
UNKNOWN = "DICOM object of an unknown kind, which holds no image"
DIRECTORY = "DICOM directory (DICOMDIR), which holds no image"
DOSE = "DICOM RT Dose Storage, which is no picture"
REFUSED = {
    **dict.fromkeys(("README.txt", "crayons.icc", "test1.json", "test_PN.json", "zipMR.gz"), FOREIGN),
    **dict.fromkeys(("rtplan.dump", "rtstruct.dump", "no_meta.dcm"), FOREIGN),
    **dict.fromkeys(("dicomdirtests/README.txt", "dicomdirtests/TINY_ALPHA/README"), FOREIGN),
    **dict.fromkeys(("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm"), "DICOM RT Ion Plan Storage, which holds"),
    **dict.fromkeys(("JPEG-lossy.dcm", "MR_truncated.dcm"), DAMAGED),
    **dict.fromkeys(("SC_rgb_rle_32bit.dcm", "SC_rgb_rle_32bit_2frame.dcm"), "32-bit samples, expected at most 16"),
    **dict.fromkeys(("empty_charset_LEI.dcm", "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm"), UNKNOWN),
    **dict.fromkeys(("liver_1frame.dcm", "liver_expb_1frame.dcm"), "DICOM Segmentation Storage, which is no picture"),
    **dict.fromkeys(
        ("reportsi.dcm", "reportsi_with_empty_number_tags.dcm"), "DICOM Basic Text SR Storage, which holds"
    ),
    **dict.fromkeys(("rtplan.dcm", "rtplan_truncated.dcm"), "DICOM RT Plan Storage, which holds no image"),
    **dict.fromkeys(("badVR.dcm", "rtdose.dcm", "rtdose_1frame.dcm", "rtdose_expb.dcm"), DOSE),
    **dict.fromkeys(("rtdose_expb_1frame.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm"), DOSE),
    "JPEG2000-embedded-sequence-delimiter.dcm": "DICOM header and compressed pixels differ in size",
    "UN_sequence.dcm": "DICOM CT Image Storage, which holds no image",
    "no_meta_group_length.dcm": "DICOM RT Image Storage, which holds no image",
    "priv_SQ.dcm": "DICOM MR Image Storage, which holds no image",
    "rtstruct.dcm": "DICOM RT Structure Set Storage, which holds no image",
    "test-SR.dcm": "DICOM Comprehensive SR Storage, which holds no image",
    "waveform_ecg.dcm": "DICOM 12-lead ECG Waveform Storage, which holds no image",
    **{
        f"dicomdirtests/{name}": DIRECTORY
        for name in (
            *("DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-empty.dcm", "DICOMDIR-implicit", "DICOMDIR-nooffset"),
            *("DICOMDIR-nopatient", "DICOMDIR-reordered", "TINY_ALPHA/DICOMDIR"),
        )
    },
}
REFUSED |= {  # the files of this disc are headers alone
    path.relative_to(FOLDER).as_posix(): "DICOM CT Image Storage, which holds no image"
    for path in FILES
    if path.name.startswith("IM0000")
}
FRAMES = {"SC_rgb_rle_16bit_2frame.dcm": 2, "SC_rgb_rle_2frame.dcm": 2, "examples_ybr_color.dcm": 30}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let pydicom's own reading, which is the reference here, say what it likes."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def read_reference(path: Path, frame: int) -> npt.NDArray[Any]:
    """Return what pydicom shows, from 0 to 1."""
    dataset = pydicom.dcmread(path, force=True)
    stored = dataset.pixel_array[frame - 1] if count(dataset) > 1 else dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        coloured = pydicom.pixels.apply_color_lut(stored, dataset)
        return coloured / np.iinfo(coloured.dtype).max
    if stored.ndim == 3:
        return stored / np.iinfo(stored.dtype).max
    values = pydicom.pixels.apply_modality_lut(stored, dataset).astype(float)
    low, high = spread(dataset, stored, values)
    if "WindowWidth" in dataset:
        values = pydicom.pixels.apply_windowing(values, dataset)
    shown = np.clip((values - low) / (high - low), 0, 1)
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def count(dataset: Any) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def spread(dataset: Any, stored: npt.NDArray[Any], values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the values of black and white: of the bits where pydicom's window is over them, else of the frame."""
    if "WindowWidth" not in dataset and dataset.BitsStored > 8:
        shown = values[stored != dataset.get("PixelPaddingValue", 1 << 20)]
        return shown.min(), shown.max()
    signed = dataset.PixelRepresentation
    ends = np.array([-(2 ** (dataset.BitsStored - 1)) if signed else 0, 2 ** (dataset.BitsStored - signed) - 1])
    low, high = ends * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    return low, high


def test_there_are_as_many_as_this_table_was_made_for() -> None:
    assert len(list(FOLDER.iterdir())) >= 86
    assert REFUSED.keys() <= {name(path) for path in FILES}


@pytest.mark.parametrize("path", [path for path in FILES if name(path) not in REFUSED], ids=name)
def test_pictures_are_what_pydicom_shows(path: Path) -> None:
    frames = count_frames(path)
    assert frames == FRAMES.get(name(path), 1)
    for frame in sorted({1, frames}):
        image = decode_image(path, frame=frame)
        reference = read_reference(path, frame)
        assert (image.format, image.frame) == ("DICOM", frame if frames > 1 else None)
        assert image.pixels.shape == reference.shape
        shown = image.pixels / np.iinfo(image.pixels.dtype).max
        np.testing.assert_allclose(shown, reference, rtol=0, atol=1e-5)
        flat = path.name in {"17166", "17196"}  # cropped to bone beyond their window
        assert (shown.std() > 1e-3) != flat


@pytest.mark.parametrize("path", [path for path in FILES if name(path) in REFUSED], ids=name)
def test_the_rest_is_refused_by_name(path: Path) -> None:
    with pytest.raises(ImageError) as refusal:
        decode_image(path, frame=1)
    assert str(refusal.value).startswith(REFUSED[name(path)])
    assert len(str(refusal.value)) < 80
    assert refusal.value.__cause__ is None or REFUSED[name(path)] == FOREIGN


@pytest.mark.parametrize("frames", FRAMES)
def test_several_frames_need_a_choice(frames: str) -> None:
    with pytest.raises(ImageError, match=f"DICOM file with {FRAMES[frames]} frames, of which one must be chosen"):
        decode_image(FOLDER / frames)
    with pytest.raises(ImageError, match=f"frame {FRAMES[frames] + 1} of a file with {FRAMES[frames]}"):
        decode_image(FOLDER / frames, frame=FRAMES[frames] + 1)
    with pytest.raises(ImageError, match="frame 0 of a file with"):
        decode_image(FOLDER / frames, frame=0)


@pytest.mark.parametrize(
    "file", ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "examples_overlay.dcm"]
)
def test_windows_are_what_highdicom_shows(file: str) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom comes with the extra `dicom`")
    options = {"dtype": np.float64, "apply_voi_transform": None, "voi_output_range": (0, 1)}
    expected = highdicom.imread(FOLDER / file).get_frame(1, **options)
    np.testing.assert_allclose(decode_image(FOLDER / file).pixels / 65535, expected, rtol=0, atol=1e-5)


def test_the_colours_of_a_known_pattern() -> None:
    """Bars of red, green, blue and black, by whatever way they were compressed."""
    for path in sorted(FOLDER.glob("SC_rgb_*")):
        if name(path) in REFUSED or decode_image(path, frame=1).pixels.shape[:2] != (100, 100):
            continue
        bars = decode_image(path, frame=1).to_rgb8()[[5, 25, 45, 65], 50].astype(int)
        pure = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]])
        assert np.abs(bars - pure).max() <= 5, path.name
