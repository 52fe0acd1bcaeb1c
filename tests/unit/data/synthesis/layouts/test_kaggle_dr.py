from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data.synthesis import SynthesisSettings, synthesize_layout
from softcam.data.synthesis.fundus import FIELD
from softcam.data.synthesis.layouts.kaggle_dr import CAMERAS, Camera, frame, level_of, name_of

SETTINGS = SynthesisSettings(images=16, size=96, difficulty="easy", seed=1)


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_layout("kaggle-dr", tmp_path_factory.mktemp("kaggle") / "set", SETTINGS)


def test_table_and_files_are_named_as_in_the_download(download: Path) -> None:
    table = pd.read_csv(download / "trainLabels.csv")
    assert (download / "trainLabels.csv").read_text().startswith("image,level\n1")
    assert list(table) == ["image", "level"]
    assert table["level"].between(0, 4).all()
    assert {f"{name}.jpeg" for name in table["image"]} == {path.name for path in (download / "train").iterdir()}
    assert all(re.fullmatch(r"\d+_(left|right)", name) for name in table["image"])
    patients = [int(name.split("_")[0]) for name in table["image"]]
    assert patients == sorted(patients)
    assert Counter(patients).most_common(1)[0][1] == 2


def test_photographs_are_wider_than_high_and_black_around(download: Path) -> None:
    for path in (download / "train").iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.height) == ("JPEG", "RGB", 96)
            assert image.width in {128, 144}
            pixels = np.asarray(image)
        assert pixels[:, :4].max() < 25
        assert pixels[:, -4:].max() < 25
        assert pixels[30:66, image.width // 2 - 15 : image.width // 2 + 15].mean() > 60


def test_masks_are_kept_for_eyes_with_lesions_and_lie_on_them(download: Path) -> None:
    table = pd.read_csv(download / "trainLabels.csv").set_index("image")["level"]
    masks = {path.stem.removesuffix("_mask"): np.asarray(Image.open(path)) for path in (download / "masks").iterdir()}
    assert set(masks) == {name for name, level in table.items() if level}
    assert masks
    for name, mask in masks.items():
        pixels = np.asarray(Image.open(download / "train" / f"{name}.jpeg"))
        assert mask.shape == pixels.shape[:2]
        assert set(np.unique(mask)) == {0, 255}
        assert pixels[mask > 0].max(1).min() > 25


def test_the_field_of_view_has_the_cameras_diameter() -> None:
    drawn = np.hypot(*np.indices((400, 400)) - 199.5) < FIELD * 400
    for camera in CAMERAS:
        framed = frame(drawn, camera, 300)
        assert framed.shape == (300, round(300 * camera.aspect))
        assert framed.any(0).sum() == pytest.approx(300 * camera.field, abs=3)
        assert framed.any(1).sum() == pytest.approx(min(300, 300 * camera.field), abs=3)
        rows, columns = np.nonzero(framed)
        assert rows.mean() == pytest.approx(149.5, abs=1)
        assert columns.mean() == pytest.approx(150 * camera.aspect - 0.5, abs=1)
    assert any(camera.field > 1 for camera in CAMERAS), "some fields are cut off"
    assert Camera(1.5, 1.0).aspect == 1.5


def test_grades_are_as_frequent_as_in_the_official_set() -> None:
    levels = Counter(level_of(number, SynthesisSettings(seed=2)) for number in range(4000))
    for level, share in {0: 0.735, 1: 0.070, 2: 0.151, 3: 0.025, 4: 0.020}.items():
        assert levels[level] / 4000 == pytest.approx(share, abs=0.008)


def test_both_eyes_of_a_patient_are_mostly_alike_but_not_always() -> None:
    levels = np.array([level_of(number, SynthesisSettings()) for number in range(2000)]).reshape(-1, 2)
    assert 0.88 < (levels[:, 0] == levels[:, 1]).mean() < 0.97


def test_names_are_unique() -> None:
    names = [name_of(number, SynthesisSettings()) for number in range(2000)]
    assert len(set(names)) == 2000
    assert names[0].removesuffix("_left") == names[1].removesuffix("_right")
