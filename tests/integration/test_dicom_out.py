"""From DICOM files to DICOM objects, to an archive, and without the patient: the real command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
import torch
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.presentation import build_context

import softcam
from softcam.cli import main
from softcam.imaging import encode_png
from softcam.nn import convert

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SECRETS = ("Nadja", "MRN-4711", "19630713", "20010917", "ACC-9911")
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"


class Result(NamedTuple):
    """What a command came to; its texts with single blanks."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *(" ".join(text.split()) for text in capsys.readouterr()))

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    network = convert(softcam.create_black_box("timm:test_resnet", num_classes=2).eval())
    return softcam.save(network, tmp_path_factory.mktemp("model") / "model", classes=("normal", "opacity"))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Write a patient's image, a picture that is no DICOM file, and an image without identifiers."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    dataset = pydicom.dcmread(FILES / "CT_small.dcm")
    dataset.PatientName, dataset.PatientID = "Marked^Nadja", "MRN-4711"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.AccessionNumber = "19630713", "20010917", "ACC-9911"
    dataset.save_as(folder / "a.dcm")
    del dataset.StudyInstanceUID
    dataset.Rows //= 2
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]
    dataset.save_as(folder / "bare.dcm")
    noise = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    (folder / "picture.png").write_bytes(encode_png(noise))
    return folder


def list_texts(folder: Path) -> list[str]:
    """Return every text that was written, and every name of a file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [path.read_text() for path in files if path.suffix in (".csv", ".json", ".txt", ".jsonl", ".html")]
    return [*texts, *(str(path.relative_to(folder)) for path in files)]


def list_secrets(*texts: str) -> list[str]:
    return [secret for secret in SECRETS for text in texts if secret in text]


def test_explain_writes_objects_for_dicom_files_and_says_what_has_none(
    run: Run, model: Path, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("explain", model, inputs, "--out", out, "--dicom-out")
    assert result.returncode == 1, result.stderr
    assert sorted(path.name for path in (out / "dicom" / "a.dcm").iterdir()) == [
        "capture.dcm", "map.dcm", "report.dcm", "segmentation.dcm",
    ]  # fmt: skip
    assert "3 explained, 0 failed" in result.stdout
    assert "1 images have DICOM objects" in result.stderr
    assert "1 inputs are no DICOM files and have none" in result.stderr
    assert (
        "no DICOM objects for bare.dcm: Expected a DICOM image, but its header has no StudyInstanceUID" in result.stderr
    )
    with np.load(out / "evidence" / "a.dcm.npz") as arrays:
        stored = pydicom.dcmread(out / "dicom" / "a.dcm" / "map.dcm")
        highest = int(arrays["logits"].argmax())
        inside = stored.pixel_array[0][stored.pixel_array[0] > -1e38]
        assert set(np.unique(inside)) == set(np.unique(arrays["maps"][highest]))
    assert list_secrets(result.stdout, result.stderr, *list_texts(out)) == []
    again = run("explain", model, inputs, "--out", out, "--dicom-out")
    assert (again.returncode, again.stdout) == (result.returncode, result.stdout)
    other = run("explain", model, inputs, "--out", out, "--dicom-out", "map")
    assert other.returncode == 2


def test_chosen_kinds_without_the_patient(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("explain", model, inputs / "a.dcm", "--out", out, "--dicom-out", "map", "report", "--deidentify")
    assert result.returncode == 0, result.stderr
    made = sorted((out / "dicom" / "a.dcm").iterdir())
    assert [path.name for path in made] == ["map.dcm", "report.dcm"]
    for path in made:
        assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()]
        assert pydicom.dcmread(path).PatientIdentityRemoved == "YES"
    assert not list(out.rglob("*.key"))


def test_flags_that_do_not_fit(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    alone = run("explain", model, inputs, "--out", tmp_path / "out", "--deidentify")
    assert alone.returncode == 2
    assert "--deidentify together with --dicom-out" in alone.stderr
    unknown = run("explain", model, inputs, "--out", tmp_path / "out", "--dicom-out", "movie")
    assert unknown.returncode == 2
    assert "map, segmentation, report, capture" in unknown.stderr


def test_files_are_sent_and_a_failure_is_the_exit_code(run: Run, inputs: Path) -> None:
    received = []

    def on_store(event: evt.Event) -> int:
        received.append(event.dataset.SOPInstanceUID)
        return 0x0000

    entity = AE(ae_title="ARCHIVE")
    entity.supported_contexts = [*AllStoragePresentationContexts, build_context(PARAMETRIC_MAP)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        address = f"127.0.0.1:{server.server_address[1]}"
        good = run("dicom", "send", inputs / "a.dcm", "--to", address, "--aet", "ARCHIVE")
        mixed = run("dicom", "send", inputs / "a.dcm", inputs / "picture.png", "--to", address, "--json")
    finally:
        server.shutdown()
    assert (good.returncode, good.stdout) == (0, "1 sent, 0 failed"), good.stderr
    assert mixed.returncode == 1
    assert '"problem": "not a DICOM file"' in mixed.stdout
    assert len(received) == 2
    assert list_secrets(good.stdout, good.stderr, mixed.stdout, mixed.stderr) == []


def test_copies_without_the_patient(run: Run, inputs: Path, tmp_path: Path) -> None:
    result = run("dicom", "deidentify", inputs, "--out", tmp_path / "clean")
    assert (result.returncode, "2 de-identified, 0 failed" in result.stdout) == (0, True)
    assert "may show text in their pixels" in result.stderr
    assert list_secrets(result.stdout, result.stderr, *list_texts(tmp_path / "clean")) == []
    for path in (tmp_path / "clean").rglob("*.dcm"):
        assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()]
