"""Tables, splits and names of a download: what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from softcam.data.archives import Member
from softcam.data.downloads import (
    PreparationSettings,
    count_labels,
    index_images,
    match_images,
    order_columns,
    read_columns,
    read_splits,
    split_rows,
)
from softcam.data.sources import DOWNLOADS
from softcam.errors import ManifestError

FILES = {"train": ("reduced.csv", "train.csv"), "val": ("val.csv",), "test": ("test.csv",)}


def member(name: str, size: int = 1) -> Member:
    return Member(name, None, f"/nowhere/{name}", size)


@pytest.mark.parametrize(("name", "value", "least"), [("size", 15, 16), ("workers", 0, 1), ("seed", -1, 0)])
def test_settings_out_of_range_are_refused(name: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}` to be at least {least}, but got {value}"):
        PreparationSettings(**{name: value})
    assert getattr(PreparationSettings(**{name: least}), name) == least


def test_labels_are_chosen_by_name() -> None:
    download = DOWNLOADS["kaggle-dr"]
    assert download.choose_labels(PreparationSettings()) == "onset1"
    assert download.choose_labels(PreparationSettings(labels="grades")) == "grades"
    with pytest.raises(
        ValueError, match=r"`labels` of kaggle-dr to be one of onset1, onset2, grades, but got 'drusen'"
    ):
        download.choose_labels(PreparationSettings(labels="drusen"))


def test_columns_are_text_without_spaces_and_without_a_mark() -> None:
    table = read_columns("\ufeffimage, level\n a ,007\nNA,\n".encode(), "t.csv", ["image", "level"])
    assert table.to_dict("list") == {"image": ["a", "NA"], "level": ["007", ""]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"t\.csv in the download, but it is missing"),
        (b"image,grade\n", r"t\.csv to have the columns image, level, but got image, grade"),
        (b"", r"t\.csv to be comma-separated text"),
        (b"\xff\xfe\x00", r"t\.csv to be comma-separated text"),
        (b'image,level\n"a', r"t\.csv to be comma-separated text"),
    ],
)
def test_a_wrong_table_is_named(content: bytes | None, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_columns(content, "t.csv", ["image", "level"])


def write_splits(folder: Path, **names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in names.items():
        (folder / f"{name}.csv").write_text(f"image,level,more\n{image},1,x\n")


def test_splits_are_found_in_the_folder_or_one_inside(tmp_path: Path) -> None:
    write_splits(tmp_path / "theirs", train="a", reduced="r", val="b", test="c")
    for folder in (tmp_path, tmp_path / "theirs"):
        table = read_splits(folder, FILES, inside="theirs", key="image", columns=["level"])
        assert table.to_dict("list") == {
            "image": ["r", "b", "c"],
            "level": ["1"] * 3,
            "split": ["train", "val", "test"],
        }


def test_wrong_splits_are_named(tmp_path: Path) -> None:
    write_splits(tmp_path, train="a", val="a")
    with pytest.raises(ManifestError, match=r"Expected test\.csv in .* but it is not there"):
        read_splits(tmp_path, FILES, inside="theirs", key="image", columns=["level"])
    write_splits(tmp_path, test="c")
    with pytest.raises(ManifestError, match="name each image once, but 1 are repeated"):
        read_splits(tmp_path, FILES, inside="theirs", key="image", columns=["level"])


def test_images_of_one_name_are_copies_or_a_problem() -> None:
    copies = [member("x/1.png"), member("y/1.png"), member("z/2.png", 7), member("notes.txt")]

    def name(found: Member) -> str | None:
        return found.stem if found.suffix == ".png" else None

    assert {key: found.name for key, found in index_images(copies, name).items()} == {"1": "x/1.png", "2": "z/2.png"}
    with pytest.raises(ManifestError, match=r"'2' once in the download, but got 'z/2\.png' and 'w/2\.png'"):
        index_images([*copies, member("w/2.png", 8)], name)


def test_rows_meet_their_images() -> None:
    images = {"a": member("a.png")}
    orders, skipped = match_images([("a", {"label": "x"}), ("b", {"label": "x"})], images, tuple(images.values()))
    assert [(order.stem, order.members, order.row) for order in orders] == [("a", (images["a"],), {"label": "x"})]
    assert skipped == (("b", "not in the download"),)
    with pytest.raises(ManifestError, match=r"got none among 1 files\. Unpack 'd/train\.zip' first"):
        match_images([("b", {})], {}, [member("d/train.zip")])


def test_a_drawn_split_keeps_patients_together() -> None:
    rows = [{"label": str(number % 2), "patient": str(number // 3)} for number in range(90)]
    found = split_rows(rows, PreparationSettings(seed=1))
    assert [row["patient"] for row in found] == [row["patient"] for row in rows]
    splits = pd.DataFrame(found).groupby("patient")["split"].nunique()
    assert (splits == 1).all()
    assert {row["split"] for row in found} == {"train", "val", "test"}
    assert found != split_rows(rows, PreparationSettings(seed=2))
    assert split_rows([], PreparationSettings()) == []


def test_columns_come_in_the_manifests_order_and_labels_are_counted() -> None:
    row = order_columns({"eye": "left", "patient": "1", "image": "a", "mask": "", "split": "val", "label": "x"})
    assert list(row) == ["image", "label", "split", "patient", "mask", "eye"]
    table = pd.DataFrame({"label": ["b", "a", "b"], "split": ["test", "train", "test"]})
    assert count_labels(table) == {"train": {"a": 1}, "test": {"b": 2}}
