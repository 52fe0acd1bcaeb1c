"""ELPV: real images when the package is there, a small stand-in for everything else."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data.manifest import Manifest, read_manifest
from softcam.data.sources import elpv
from softcam.errors import MissingExtraError

PROBABILITIES = (0.0, 0.3333333333333333, 0.6666666666666666, 1.0)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same layout with 40 small images."""
    folder = tmp_path / "elpv_dataset"
    (folder / "data" / "images").mkdir(parents=True)
    lines = []
    for number in range(40):
        name = f"images/cell{number:04d}.png"
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / "data" / name)
        lines.append(f"{name}  {PROBABILITIES[number % 4]}    {'mono' if number < 20 else 'poly'}")
    (folder / "data" / "labels.csv").write_text("\n".join(lines) + "\n")
    spec = ModuleSpec("elpv_dataset", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "elpv_dataset" else None)
    return folder / "data"


def _read(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_manifest_says_what_was_published(package: Path, tmp_path: Path) -> None:
    manifest = elpv.prepare(tmp_path / "out")
    assert manifest.classes == ("intact", "defect")
    assert list(manifest.table.columns) == ["image", "label", "split", "probability", "cell_type"]
    assert list(manifest.table["label"][:4]) == ["intact", "intact", "defect", "defect"]
    assert list(manifest.table["probability"].astype(float)[:4]) == list(PROBABILITIES)
    assert manifest.targets[:4].tolist() == [0, 0, 1, 1]
    assert manifest.table["split"].value_counts().to_dict() == {"train": 26, "test": 10, "val": 4}


def test_a_folder_holds_everything(package: Path, tmp_path: Path) -> None:
    manifest = elpv.prepare(tmp_path / "out")
    files = _read(tmp_path / "out")
    assert len(files) == 42
    assert files["images/cell0007.png"] == (package / "images" / "cell0007.png").read_bytes()
    again = read_manifest(tmp_path / "out", classes=elpv.CLASSES)
    assert again.digest() == manifest.digest()
    notice = files["NOTICE.txt"].decode()
    assert "CC BY-NC-SA 4.0" in notice
    assert "10.1007/s00138-021-01191-9" in notice
    assert "EU PVSEC" in notice


def test_the_split_is_drawn_from_the_seed(package: Path, tmp_path: Path) -> None:
    first, same, other = (elpv.prepare(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert list(first.table["split"]) == list(same.table["split"])
    assert list(first.table["split"]) != list(other.table["split"])


def test_an_interrupted_copy_is_continued(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    copied: list[str] = []
    copy = elpv.shutil.copyfile

    def interrupted(source: Path, target: Path) -> None:
        if len(copied) == 5:
            target.write_bytes(b"half a fi")
            raise KeyboardInterrupt
        copied.append(source.name)
        copy(source, target)

    monkeypatch.setattr(elpv.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        elpv.prepare(out)
    assert len(list((out / "images").iterdir())) == 5
    assert not (out / "manifest.csv").exists()
    monkeypatch.setattr(
        elpv.shutil, "copyfile", lambda source, target: (copied.append(source.name), copy(source, target))
    )
    assert len(elpv.prepare(out)) == 40
    assert len(copied) == len(set(copied)) == 40


def test_repeating_changes_nothing_and_heals_damage(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    elpv.prepare(out)
    before = _read(out)
    (out / "images" / "cell0003.png").write_bytes(b"x" * len(before["images/cell0003.png"]))
    elpv.prepare(out)
    assert _read(out) == before


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'softcam\[demo\]'"):
        elpv.prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    pytest.importorskip("elpv_dataset")

    @contextmanager
    def write_at_once(path: Path) -> Iterator[Path]:
        # 2,624 files that need not outlive the test need not be flushed to disk either.
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elpv, "atomic_path", write_at_once)
        return elpv.prepare(tmp_path_factory.mktemp("elpv"))


def test_the_real_images_are_split_in_proportion(real: Manifest) -> None:
    table = real.table
    assert table["split"].value_counts().to_dict() == {"train": 1706, "test": 656, "val": 262}
    assert table["label"].value_counts().to_dict() == {"intact": 1803, "defect": 821}
    strata = pd.crosstab([table["cell_type"], table["label"]], table["split"])
    expected = strata.sum(axis=1).to_numpy()[:, None] * np.array([0.25, 0.65, 0.1])
    assert np.abs(strata[["test", "train", "val"]].to_numpy() - expected).max() < 2


@pytest.mark.slow
def test_the_real_images_have_no_problem(real: Manifest) -> None:
    assert real.check_images() == ()
