"""DICOM files end to end: folders, archives, discs and frames become rows, evidence and overlays."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import softcam.reporting.explanations as module
from softcam.imaging import Preprocessing
from softcam.nn import convert
from softcam.predict import Predictor
from softcam.reporting.explanations import explain
from softcam.reporting.inputs import Reading

pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
RANDOM = np.random.default_rng(0)
Make = Callable[..., bytes]


@pytest.fixture
def predictor(make_toy: Callable[..., nn.Module]) -> Predictor:
    torch.manual_seed(0)
    return Predictor(convert(make_toy()), preprocessing=Preprocessing(size=32), classes=["a", "b"], batch_size=3)


@pytest.fixture
def folder(tmp_path: Path, make_dicom: Make) -> Path:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    frames = RANDOM.integers(0, 256, (4, 24, 40), dtype=np.uint8)
    frames[3] = frames[0]  # the same picture, but another frame
    (tmp_path / "in" / "cine.dcm").write_bytes(make_dicom(frames))
    (tmp_path / "in" / "copy.dcm").write_bytes((tmp_path / "in" / "cine.dcm").read_bytes())
    (tmp_path / "in" / "sub" / "one").write_bytes(make_dicom(frames[1], PixelSpacing=[0.5, 0.25]))
    shutil.copy(FILES / "rtstruct.dcm", tmp_path / "in" / "plan.dcm")
    return tmp_path / "in"


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


def tree(out: Path) -> dict[str, bytes]:
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "run.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_a_folder_of_dicom(tmp_path: Path, folder: Path, predictor: Predictor) -> None:
    summary = explain(predictor, [folder], tmp_path / "out")
    assert (summary.done, summary.failed) == (5, 5)
    found = rows(tmp_path / "out")
    frames = [f"cine.dcm#{number}" for number in range(1, 5)]
    assert list(found) == [*frames, *(f"copy.dcm#{number}" for number in range(1, 5)), "plan.dcm", "sub/one"]
    assert [found[name]["status"] for name in frames] == ["ok"] * 4
    for number in range(1, 5):
        assert found[f"copy.dcm#{number}"]["error"] == f"duplicate of cine.dcm#{number}"
    assert found["plan.dcm"]["error"] == "DICOM RT Structure Set Storage, which holds no image"
    assert found["cine.dcm#1"]["logit_a"] == found["cine.dcm#4"]["logit_a"] != found["cine.dcm#2"]["logit_a"]
    assert (tmp_path / "out" / "overlays" / "cine.dcm#2.png").is_file()
    with np.load(tmp_path / "out" / "evidence" / "sub" / "one.npz", allow_pickle=False) as arrays:
        assert arrays["spacing"].tolist() == [0.5, 0.25]
        geometry = json.loads(str(arrays["geometry"]))
        assert (geometry["original_height"], geometry["original_width"]) == (24, 40)
    with np.load(tmp_path / "out" / "evidence" / "cine.dcm#1.npz", allow_pickle=False) as arrays:
        assert "spacing" not in arrays


def test_one_frame_of_each(tmp_path: Path, folder: Path, predictor: Predictor) -> None:
    explain(predictor, [folder], tmp_path / "out", reading=Reading(2))
    assert list(rows(tmp_path / "out")) == ["cine.dcm#2", "copy.dcm#2", "plan.dcm", "sub/one"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]["frames"] == 2


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path, folder: Path, predictor: Predictor) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    explain(predictor, [folder], tmp_path / "folder")
    explain(predictor, [tmp_path / "in.zip"], tmp_path / "zip")
    assert tree(tmp_path / "zip") == tree(tmp_path / "folder")
    assert explain(predictor, [tmp_path / "in.zip"], tmp_path / "zip").skipped == 10


def test_a_disc(tmp_path: Path, predictor: Predictor) -> None:
    disc = tmp_path / "disc"
    shutil.copytree(FILES / "dicomdirtests" / "77654033", disc / "77654033")
    shutil.copy(FILES / "dicomdirtests" / "DICOMDIR", disc)
    summary = explain(predictor, [disc / "DICOMDIR"], tmp_path / "out")
    found = rows(tmp_path / "out")
    assert len(found) == 31
    present = [name for name in found if name.startswith("77654033/")]
    assert len(present) == summary.done == 7
    gone = [row["error"] for name, row in found.items() if name not in present]
    assert set(gone) == {"file not found"}


@pytest.mark.parametrize(("name", "at"), [("stage", 2), ("make_row", 6), ("write_tables", 1)])
def test_the_same_command_continues(
    tmp_path: Path, folder: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    explain(predictor, [folder], tmp_path / "whole")
    original, calls = getattr(module, name), []

    def hit(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == at:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, hit)
    with pytest.raises(KeyboardInterrupt):
        explain(predictor, [folder], tmp_path / "out")
    monkeypatch.undo()
    explain(predictor, [folder], tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_large_frames_are_decoded_again_for_the_overlay(
    tmp_path: Path, folder: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain(predictor, [folder], tmp_path / "kept")
    monkeypatch.setattr(module, "_KEPT_PIXELS", 0)
    explain(predictor, [folder], tmp_path / "again")
    assert tree(tmp_path / "kept") == tree(tmp_path / "again")


def test_no_patient_in_any_file_name_or_record(
    tmp_path: Path, folder: Path, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (folder / "cut.dcm").write_bytes((folder / "cine.dcm").read_bytes()[:1500])
    explain(predictor, [folder], tmp_path / "out")
    said = [path.as_posix() for path in (tmp_path / "out").rglob("*")] + [caplog.text]
    said += [path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any("MARKED" in text or "19700101" in text for text in said)


def test_without_the_extra_dicom_fails_by_name_and_the_rest_goes_on(
    tmp_path: Path, folder: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(FILES / "README.txt", folder / "text")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    explain(predictor, [folder], tmp_path / "out")
    found = rows(tmp_path / "out")
    assert list(found) == ["cine.dcm", "copy.dcm", "plan.dcm", "sub/one", "text"]
    assert "pip install 'softcam[dicom]'" in found["cine.dcm"]["error"]
    assert found["text"]["error"].startswith("not a readable PNG")
