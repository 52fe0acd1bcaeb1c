"""`softcam data prepare` as a user runs it, on downloads in their official layouts."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import command_line
from softcam.data import read_manifest


def run(*words: object) -> command_line.Said:
    return command_line.run("data", "prepare", *words)


def photograph(seed: int) -> bytes:
    """Return a JPEG of a bright disc."""
    rows, columns = np.mgrid[:90, :120] + 0.5
    disc = np.hypot(columns - 60, rows - 45) < 40
    pixels = np.random.default_rng(seed).integers(80, 160, (90, 120, 3), dtype=np.uint8) * disc[..., None]
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def test_a_download_in_parts_becomes_a_manifest_and_bad_files_are_counted(tmp_path: Path) -> None:
    download = tmp_path / "download"
    download.mkdir()
    names = [f"{number}_{eye}" for number in range(10, 22) for eye in ("left", "right")]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for seed, name in enumerate(names):
            archive.writestr(f"train/{name}.jpeg", b"cut off" if name == "12_left" else photograph(seed))
    content = stream.getvalue()
    third = len(content) // 3
    for number, start in enumerate((0, third, 2 * third), start=1):
        stop = None if number == 3 else start + third
        (download / f"train.zip.{number:03d}").write_bytes(content[start:stop])
    with zipfile.ZipFile(download / "trainLabels.csv.zip", "w") as archive:
        lines = "".join(f"{name},{number % 5}\n" for number, name in enumerate(names))
        archive.writestr("trainLabels.csv", "image,level\n" + lines)
    out = tmp_path / "out"
    done = run("kaggle-dr", download, "--out", out, "--labels", "grades", "--size", 64, "--workers", 2)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [f"23 images: {out / 'manifest.csv'}", f"1 skipped: {out / 'skipped.csv'}"]
    assert pd.read_csv(out / "skipped.csv")["image"].tolist() == ["train/12_left.jpeg"]
    manifest = read_manifest(out / "manifest.csv", classes=["0", "1", "2", "3", "4"])
    assert manifest.check_images() == ()
    record = json.loads((out / "data.json").read_text())
    assert record["digest"] == manifest.digest()
    again = run("kaggle-dr", download, "--out", out, "--size", 64)
    assert again.returncode == 1
    assert set(pd.read_csv(out / "manifest.csv")["label"]) == {"healthy", "referable"}


def test_real_dicom_files_are_prepared(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("softcam.imaging.dicom", reason="this checkout reads no DICOM")
    folder = tmp_path / "download/stage_2_train_images"
    folder.mkdir(parents=True)
    source = next(path for path in (shared_data / "dicom_samples").iterdir() if "Fake" not in path.name)
    for name in "abc":
        (folder / f"{name}.dcm").write_bytes(source.read_bytes())
    labels = "patientId,x,y,width,height,Target\na,100,200,300,400,1\na,600,10,20,30,1\nb,,,,,0\nc,,,,,0\n"
    (tmp_path / "download/stage_2_train_labels.csv").write_text(labels)
    details = "patientId,class\na,Lung Opacity\nb,Normal\nc,Normal\n"
    (tmp_path / "download/stage_2_detailed_class_info.csv").write_text(details)
    done = run("rsna", tmp_path / "download", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out/manifest.csv", classes=["normal", "pneumonia"])
    boxes = dict(zip(manifest.table["patient"], manifest.boxes, strict=True))
    assert boxes["a"].tolist() == [[50, 100, 150, 200], [300, 5, 10, 15]]
    written = np.asarray(Image.open(manifest.paths[0]))
    assert written.shape == (512, 512)
    original = np.asarray(Image.open(io.BytesIO(_jpeg(source))), dtype=float)
    assert np.abs(written - original.reshape(512, 2, 512, 2).mean((1, 3))).max() <= 1


def _jpeg(path: Path) -> bytes:
    content = path.read_bytes()
    return content[content.index(b"\xff\xd8\xff") :]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rsna"], "the downloaded folder or zip file after 'rsna'"),
        (["chest", "x"], "one of kaggle-dr, retinal-oct, rsna, idrid, but got 'chest'"),
        (["rsna", "absent"], "Expected the download 'absent' to exist"),
        (["rsna", ".", "--labels", "grades"], "`labels` of rsna to be one of pneumonia, pneumonia-all"),
        (["rsna", ".", "--size", "4"], "`size` to be at least 16"),
    ],
)
def test_what_cannot_be_prepared_is_one_clear_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
