"""Nothing of a header but what describes pixels comes out, by whatever way."""

from __future__ import annotations

import io
import logging
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from softcam.errors import ImageError, MissingExtraError
from softcam.imaging import count_frames, decode_image
from softcam.imaging.dicom import list_references, read_dicom
from softcam.imaging.dicom.silence import guarded, silenced

pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")

PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)
MARKS = ("MARKED", "19700101")

Make = Callable[..., bytes]


def list_ways(make_dicom: Make) -> list[bytes]:
    """Files that pydicom has much to say about."""
    whole = make_dicom(PIXELS)
    dataset = pydicom.dcmread(io.BytesIO(whole))
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    del dataset.PixelData, dataset.Rows
    structure = io.BytesIO()
    pydicom.dcmwrite(structure, dataset)
    ways = [whole, whole[:-20], whole[:300], structure.getvalue(), make_dicom(PIXELS, Rows=500)]
    ways += [make_dicom(PIXELS, NumberOfFrames="0"), make_dicom(np.stack([PIXELS] * 2))]
    ways += [make_dicom(PIXELS, SOPClassUID="MARKED^PATIENT"), make_dicom(PIXELS, WindowCenter=1, WindowWidth=1)]
    for _ in range(60):
        damaged = bytearray(whole)
        for position in np.random.default_rng(len(ways)).integers(132, len(whole) - 48, 5):
            damaged[position] ^= 0x55
        ways.append(bytes(damaged))
    return ways


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_nothing_of_the_patient_is_said(
    make_dicom: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    ways = list_ways(make_dicom)
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    capfd.readouterr()
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for content in ways:
            for read in (decode_image, count_frames, list_references):
                try:
                    said.append(repr(read(content)))
                except ImageError:
                    said.append(traceback.format_exc())
    assert caught == []
    assert caplog.records == []
    said += capfd.readouterr()
    assert any("DICOM" in text for text in said)
    assert [text for text in said if any(mark in text for mark in MARKS)] == []


def test_nothing_of_the_patient_is_kept(make_dicom: Make) -> None:
    file = read_dicom(make_dicom(PIXELS))
    assert not any(mark in str(file.header) for mark in MARKS)
    assert {element.keyword for element in file.header} <= {
        *("SOPClassUID", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"),
        *("BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    }


def test_the_libraries_speak_again_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    before = list(warnings.filters)
    caplog.set_level(logging.DEBUG)
    with silenced(), silenced():
        logging.getLogger("pydicom").warning("inside")
        logging.getLogger("pydicom.pixels.decoders.base").warning("inside")
        logging.getLogger("mine").warning("mine")
        pydicom.misc.warn_and_log("inside")
    assert [record.message for record in caplog.records] == ["mine"]
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="outside"):
        pydicom.misc.warn_and_log("outside")
    assert caplog.records[-1].message == "outside"


def test_other_threads_go_on_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with silenced():
        thread = threading.Thread(target=lambda: logging.getLogger("pydicom").warning("elsewhere"))
        thread.start()
        thread.join()
    assert [record.message for record in caplog.records] == ["elsewhere"]


def test_threads_leave_in_any_order(make_dicom: Make) -> None:
    before = list(warnings.filters)
    content = make_dicom(PIXELS, WindowCenter=20, WindowWidth=30)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(decode_image, [content] * 200))
    assert all(np.array_equal(image.pixels, images[0].pixels) for image in images)
    assert warnings.filters == before


def test_a_codec_that_panics_is_a_reason_and_an_interruption_is_not() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(ImageError, match="reason"), guarded("reason"):
        raise panic("MARKED")
    with pytest.raises(KeyboardInterrupt), guarded("reason"):
        raise KeyboardInterrupt


def test_a_missing_library_is_named(make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    content = make_dicom(PIXELS)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"package 'pydicom' to be installed. Run: pip install 'softcam\[dicom"):
        decode_image(content)


def test_a_missing_codec_is_named(test_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = pydicom.pixels.get_decoder("1.2.840.10008.1.2.4.90")
    monkeypatch.setattr(decoder, "_available", {"pillow": None})
    with pytest.raises(MissingExtraError, match="package 'pylibjpeg' to be installed"):
        decode_image(test_files / "MR_small_jp2klossless.dcm")
