from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softcam.data.synthesis import SynthesisSettings, synthesize_layout
from softcam.data.synthesis.layouts.retinal_oct import CLASSES, place_of

SETTINGS = SynthesisSettings(images=64, size=64)


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_layout("retinal-oct", tmp_path_factory.mktemp("oct") / "set", SETTINGS)


def test_folders_and_files_are_named_as_in_the_download(download: Path) -> None:
    patients: dict[str, set[str]] = defaultdict(set)
    files = sorted((download / "OCT2017").rglob("*.*"))
    assert len(files) == 64
    for path in files:
        split, label, name = path.relative_to(download / "OCT2017").parts
        matched = re.fullmatch(rf"{label}-(\d{{7}})-(\d+)\.jpeg", name)
        assert matched
        assert label in {"CNV", "DME", "DRUSEN", "NORMAL"}
        patients[split].add(matched[1])
    assert set(patients) == {"train", "test"}
    assert not patients["train"] & patients["test"]
    assert {path.name for path in (download / "OCT2017" / "test").iterdir()} == set(CLASSES)


def test_scans_are_grey_and_as_wide_as_the_official_ones(download: Path) -> None:
    widths = set()
    for path in (download / "OCT2017").rglob("*.jpeg"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.height) == ("JPEG", "L", 64)
            widths.add(image.width)
    assert widths == {round(width / 496 * 64) for width in (512, 768)}


def test_every_scan_with_a_finding_has_its_mask(download: Path) -> None:
    masks = {path.stem.removesuffix("_mask"): path for path in (download / "masks").iterdir()}
    scans = {path.stem: path for path in (download / "OCT2017").rglob("*.jpeg")}
    assert set(masks) == {name for name in scans if not name.startswith("NORMAL")}
    for name, path in masks.items():
        mask = np.asarray(Image.open(path))
        assert mask.shape == np.asarray(Image.open(scans[name])).shape
        assert 0 < (mask > 0).mean() < 0.25
        assert set(np.unique(mask)) == {0, 255}


def test_a_patient_has_several_images_in_a_row_of_one_class() -> None:
    places = [place_of(number, SynthesisSettings()) for number in range(1600)]
    of_patient = defaultdict(list)
    for place in places:
        of_patient[place.patient].append(place)
    for found in list(of_patient.values())[:-1]:
        assert [place.count for place in found] == list(range(1, len(found) + 1))
        assert len({(place.split, place.label) for place in found}) == 1
    assert set(map(len, of_patient.values())) == {2, 3, 4, 5}


def test_classes_are_as_frequent_as_officially_and_equally_so_for_testing() -> None:
    places = [place_of(number, SynthesisSettings(seed=4)) for number in range(6000)]
    train, test = (Counter(place.label for place in places if place.split == split) for split in ("train", "test"))
    for label, count in {"CNV": 37206, "DME": 11349, "DRUSEN": 8617, "NORMAL": 51140}.items():
        assert train[label] / train.total() == pytest.approx(count / 108312, abs=0.03)
        assert test[label] / test.total() == pytest.approx(0.25, abs=0.01)
    assert 0.1 < test.total() / 6000 < 0.2


def test_some_scans_are_white_where_nothing_was_taken(download: Path) -> None:
    corners = [
        np.asarray(Image.open(path))[[0, 0, -1, -1], [0, -1, 0, -1]].max()
        for path in (download / "OCT2017").rglob("*.jpeg")
    ]
    assert 0.1 < np.mean(np.array(corners) > 230) < 0.6
