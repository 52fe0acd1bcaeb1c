"""Kaggle DR: tables, grades, eyes, splits and the crop to the fundus."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data.archives import Member, list_members
from softcam.data.downloads import PreparationSettings
from softcam.data.preparation import prepare
from softcam.data.sources.kaggle_dr import KAGGLE_DR, SPLIT_FILES, convert, plan
from softcam.errors import ManifestError
from softcam.imaging import decode_image

MakeImage = Callable[..., bytes]

LEVELS = {"10_left": 0, "10_right": 1, "13_left": 2, "13_right": 3, "15_left": 4, "15_right": 0}


@pytest.fixture
def download(tmp_path: Path, make_image: MakeImage) -> Path:
    folder = tmp_path / "download"
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    for number, name in enumerate(LEVELS):
        (folder / f"train/{name}.jpeg").write_bytes(make_image(number))
    for name in ("1_left", "1_right"):
        (folder / f"test/{name}.jpeg").write_bytes(make_image(7))
    lines = "".join(f"{name},{level}\n" for name, level in LEVELS.items())
    (folder / "trainLabels.csv").write_text("image,level\n" + lines)
    return folder


def rows(download: Path, **settings: object) -> dict[str, dict[str, object]]:
    found = plan(list_members(download), PreparationSettings(**settings))  # type: ignore[arg-type]
    return {order.stem: order.row for order in found.orders}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, ["healthy", "referable", "referable", "referable", "referable", "healthy"]),
        ("onset1", ["healthy", "referable", "referable", "referable", "referable", "healthy"]),
        ("onset2", ["healthy", "healthy", "referable", "referable", "referable", "healthy"]),
        ("grades", ["0", "1", "2", "3", "4", "0"]),
    ],
)
def test_grades_become_labels(download: Path, labels: str | None, expected: list[str]) -> None:
    found = rows(download, labels=labels)
    assert [row["label"] for row in found.values()] == expected
    assert found["13_right"] == found["13_right"] | {"patient": "13", "eye": "right", "level": "3"}


def test_both_eyes_of_a_patient_share_a_split_and_official_test_images_need_no_label(download: Path) -> None:
    found = plan(list_members(download), PreparationSettings())
    splits = pd.DataFrame([order.row for order in found.orders]).groupby("patient")["split"].nunique()
    assert (splits == 1).all()
    assert found.skipped == ()
    assert found.notes == {"unused images": 2}


def test_labels_of_the_test_images_are_used_where_they_are(download: Path) -> None:
    (download / "retinopathy_solution.csv").write_text("image,level,Usage\n1_left,2,Private\n1_right,0,Public\n")
    assert len(rows(download)) == 8


def test_the_manifest_says_where_the_crop_lies(download: Path, tmp_path: Path) -> None:
    found = prepare(KAGGLE_DR, download, tmp_path / "out", PreparationSettings(size=32, workers=1))
    assert found.skipped == ()
    table = found.manifest.table
    assert list(table.columns) == [
        "image", "label", "split", "patient", "eye", "level", "crop_x", "crop_y", "crop_side", "circle",
    ]  # fmt: skip
    assert set(table["circle"]) == {"1"}
    image = decode_image(found.manifest.paths[0])
    assert (image.width, image.height, image.format) == (32, 32, "PNG")
    first = table.iloc[0]
    # The disc of 27 px radius is in the middle of 80 x 60.
    assert [int(first[name]) for name in ("crop_x", "crop_y", "crop_side")] == pytest.approx([13, 3, 54], abs=2)
    assert image.pixels[16, 16, 0] == pytest.approx(100, abs=3)
    assert image.pixels[0, 0].max() < 20


def test_a_photograph_without_a_circle_is_cut_from_the_middle_and_marked(make_image: MakeImage) -> None:
    flat = make_image(size=(80, 60))
    product = convert("x", [flat], 16)
    assert product.facts["circle"] == 1
    stream = io.BytesIO()
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(stream, "PNG")
    product = convert("x", [stream.getvalue()], 16)
    assert product.facts == {"crop_x": 10, "crop_y": 0, "crop_side": 60, "circle": 0}
    assert decode_image(product.files["images/x.png"]).pixels.tolist() == np.full((16, 16, 3), 90).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,grade\n10_left,0\n", "columns image, level, but got image, grade"),
        ("image,level\n10_left,5\n", r"trainLabels\.csv, row 2: .* level from 0 to 4, but got '10_left', '5'"),
        ("image,level\n10_left,0\nleft_10,0\n", r"row 3: .*'left_10'"),
        ("image,level\n10_left,0\n10_left,1\n", "each image once, but got '10_left' and 0 more twice"),
    ],
)
def test_wrong_tables_are_named(download: Path, text: str, message: str) -> None:
    (download / "trainLabels.csv").write_text(text)
    with pytest.raises(ManifestError, match=message):
        rows(download)


def test_a_missing_table_and_missing_images_are_named(download: Path) -> None:
    (download / "train/10_left.jpeg").unlink()
    with (download / "trainLabels.csv").open("a") as table:
        table.write("99_left,2\n")
    (download / "train/77_left.jpeg").write_bytes(b"x")
    found = plan(list_members(download), PreparationSettings())
    assert found.skipped == (
        ("10_left", "not in the download"),
        ("99_left", "not in the download"),
        ("train/77_left.jpeg", "no grade in trainLabels.csv"),
    )
    (download / "trainLabels.csv").unlink()
    with pytest.raises(ManifestError, match=r"the table trainLabels\.csv in the download, but it is missing"):
        rows(download)


def write_splits(folder: Path, level: int = 2) -> Path:
    folder.mkdir()
    names = [("kaggle_gradable_train_reduce.csv", "10_right", 1), ("kaggle_gradable_val.csv", "13_left", level)]
    for file, image, grade in [*names, ("kaggle_gradable_test.csv", "1_left", 0)]:
        (folder / file).write_text(f"image,level,onset1,filename\n{image},{grade},{int(grade > 0)},{image}.png\n")
    return folder


def test_published_splits_take_images_of_both_official_folders(download: Path, tmp_path: Path) -> None:
    found = rows(download, splits=write_splits(tmp_path / "splits"))
    assert {name: row["split"] for name, row in found.items()} == {
        "10_right": "train", "13_left": "val", "1_left": "test",
    }  # fmt: skip


def test_splits_that_contradict_the_official_grades_are_refused(download: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="official grades, but 1 differ, '13_left' first"):
        rows(download, splits=write_splits(tmp_path / "splits", level=4))


@pytest.mark.parametrize("labels", ["onset1", "grades"])
def test_the_published_splits_have_the_papers_counts(shared_data: Path, labels: str) -> None:
    tables = [
        pd.read_csv(shared_data / "authors_splits/kaggle" / names[0], dtype=str)["image"]
        for names in SPLIT_FILES.values()
    ]
    members = [Member(f"train/{name}.jpeg", None, name, 1) for name in pd.concat(tables)]
    found = plan(members, PreparationSettings(splits=shared_data / "authors_splits", labels=labels))
    assert found.skipped == ()
    table = pd.DataFrame([order.row for order in found.orders])
    assert table["split"].value_counts().to_dict() == {"train": 15_105, "val": 4_617, "test": 6_956}
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    if labels == "onset1":
        assert table[table["split"] == "test"]["label"].value_counts().to_dict() == {
            "healthy": 5_118,
            "referable": 1_838,
        }
    else:
        counts = table[table["split"] == "train"]["label"].value_counts().to_dict()
        assert counts == {"0": 6_000, "1": 2_701, "2": 5_060, "3": 888, "4": 456}
