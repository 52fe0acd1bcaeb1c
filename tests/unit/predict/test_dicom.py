"""The negative of a radiograph, however it is stored, is the same radiograph."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softcam.imaging import Preprocessing, decode_image
from softcam.nn import SoftCAM
from softcam.predict import Predictor

pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")


@pytest.fixture
def samples(shared_data: Path) -> tuple[Path, Path]:
    """A radiograph, and its twin of the same stored pixels with MONOCHROME1."""
    folder = shared_data / "dicom_samples"
    (original,) = folder.glob("1.2.*.dcm")
    return original, folder / "Fake_MONOHR1.dcm"


def invert(path: Path) -> bytes:
    """Return the radiograph with inverted pixels and the tag that says so, without compression."""
    dataset = pydicom.dcmread(path)
    stored = decode_image(path).pixels
    dataset.PixelData = (255 - stored).tobytes()
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.PhotometricInterpretation = "MONOCHROME1"
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset)
    return stream.getvalue()


def test_the_same_pixels_under_the_other_tag_are_the_negative(samples: tuple[Path, Path]) -> None:
    original, twin = map(decode_image, samples)
    assert original.pixels.shape == (1024, 1024)
    assert original.pixels.std() > 30
    np.testing.assert_array_equal(twin.pixels, 255 - original.pixels)
    assert original.spacing == twin.spacing == (0.168, 0.168)


def test_a_true_inverted_copy_is_the_same_image(
    samples: tuple[Path, Path], model: SoftCAM, preprocessing: Preprocessing
) -> None:
    copy = invert(samples[0])
    first, second, twin = Predictor(model, preprocessing=preprocessing)([samples[0], copy, samples[1]])
    assert [p.status for p in (first, second, twin)] == ["ok"] * 3
    assert np.abs(first.logits - second.logits).max() <= 1e-4
    assert np.abs(first.maps - second.maps).max() <= 1e-4
    assert np.abs(first.logits - twin.logits).max() > 1e-3
    assert first.spacing == (0.168, 0.168)
    assert (first.geometry.original_height, first.geometry.original_width) == (1024, 1024)


def test_what_decodes_itself_is_taken(make_dicom: Callable[..., bytes], model: SoftCAM) -> None:
    content = make_dicom(np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8))

    class Frame:
        def __init__(self, number: int) -> None:
            self.id, self.number = f"frame {number}", number

        def decode(self) -> object:
            return decode_image(content, frame=self.number)

    predictor = Predictor(model, preprocessing=Preprocessing(size=32))
    one, two, four = predictor([Frame(1), Frame(2), Frame(4)])
    assert [one.id, two.id, four.id] == ["frame 1", "frame 2", "frame 4"]
    assert np.abs(one.logits - two.logits).max() > 0
    assert four.reason == "frame 4 of a file with 3"
