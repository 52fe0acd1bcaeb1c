"""From the layout of an official download to an archive: every command of the way, on look-alike radiographs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pydicom
import pytest

from softcam.cli import main

pytestmark = pytest.mark.slow

SHOWN = 3
QUICK = (
    "model.backbone=timm:test_resnet", "model.weights=none", "data.image_size=64", "data.num_workers=0",
    "stages=[{epochs: 3}]", "seed=3", "optimizer.lr=0.02",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a download, prepare it, train, evaluate and explain some of its files."""
    folder = tmp_path_factory.mktemp("study")
    commands = (
        ("data", "synthesize", "rsna", "--images", 60, "--size", 128, "--out", folder / "download"),
        ("data", "prepare", "rsna", folder / "download", "--size", 96, "--out", folder / "data"),
        ("train", "--config", "rsna", "--data", folder / "data/manifest.csv", "--set", *QUICK, "--out", folder / "run"),
    )
    for command in commands:
        assert main([str(argument) for argument in command]) == 0
    return folder


def show(study: Path) -> list[Path]:
    """Return the DICOM files of some images with boxes in the test split."""
    table = pd.read_csv(study / "data/manifest.csv")
    found = table[(table["split"] == "test") & (table["label"] == "pneumonia")]["patient"].head(SHOWN)
    return [study / f"download/stage_2_train_images/{patient}.dcm" for patient in found]


def test_every_patient_is_in_one_split_and_has_its_boxes(study: Path) -> None:
    labels = pd.read_csv(study / "download/stage_2_train_labels.csv")
    details = pd.read_csv(study / "download/stage_2_detailed_class_info.csv").drop_duplicates()
    table = pd.read_csv(study / "data/manifest.csv")
    wanted = details[details["class"] != "No Lung Opacity / Not Normal"]["patientId"]
    assert sorted(table["patient"]) == sorted(wanted)
    assert set(table["split"]) == {"train", "val", "test"}
    boxes = labels[labels["Target"] == 1].set_index("patientId")[["x", "y", "width", "height"]]
    for patient, text in zip(table["patient"], table["boxes"], strict=True):
        mine = boxes.loc[[patient]].to_numpy() if patient in boxes.index else []
        expected = [[float(value) * 96 / 128 for value in box] for box in mine]
        assert json.loads(text if isinstance(text, str) else "[]") == [pytest.approx(box) for box in expected]


def test_boxes_are_the_truth_of_the_localisation(study: Path) -> None:
    out = study / "evaluation"
    flags = ("--methods", "evidence", "random", "--measures", "localization", "--explained", 200)
    command = ("evaluate", study / "run", "--data", study / "data/manifest.csv", *flags, "--out", out)
    assert main([str(argument) for argument in command]) == 0
    table = pd.read_csv(study / "data/manifest.csv")
    tested = int((table["split"] == "test").sum())
    found = pd.read_csv(out / "benchmark.csv").set_index(["method", "metric"])
    # Localisation is of images of pneumonia that were found.
    confusion = json.loads((out / "metrics.json").read_text())["confusion"]["softcam"]
    hits = int(confusion[1][1])
    assert found.loc[("evidence", "pointing_game"), "n"] == hits > 0
    assert found.loc[("evidence", "pointing_game"), "undefined"] == tested - hits
    assert (out / "report.html").stat().st_size > 10_000


def test_predictions_reach_an_archive_as_valid_objects(
    study: Path, tmp_path: Path, archives: ModuleType, validate: Callable[[Path], list[str]]
) -> None:
    out = tmp_path / "explained"
    files = show(study)
    command = ("explain", study / "run", *files, "--out", out, "--dicom-out")
    assert main([str(argument) for argument in command]) == 0
    objects = sorted((out / "dicom").rglob("*.dcm"))
    objects = [path for path in objects if path.is_file()]
    assert len(objects) == 4 * SHOWN
    assert [found for path in objects for found in validate(path)] == []
    with archives.run_orthanc(tmp_path) as server:
        send = ("dicom", "send", out / "dicom", *files, "--to", server.dicom, "--aet", "ARCHIVE")
        assert main([str(argument) for argument in send]) == 0
        names = server.ask("/instances")
        stored = {server.ask(f"/instances/{name}/simplified-tags")["SOPInstanceUID"] for name in names}
        assert stored == {pydicom.dcmread(path).SOPInstanceUID for path in (*objects, *files)}
        # The results are in the study of the image that they are about.
        assert len(server.ask("/studies")) == SHOWN
        assert len(server.ask("/series")) == 5 * SHOWN
