"""Reading tables: what is found, how rows are numbered, and what is refused at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from softcam.data.tables import ImageTable, read_table
from softcam.errors import ManifestError


def test_rows_are_numbered_as_a_spreadsheet_shows_them(write_table: Callable[..., Path]) -> None:
    draft = read_table(write_table("image,label", "a.png,x", "", ",", '"b\nb.png",y', "c.png,x"))
    assert draft.rows is not None
    assert draft.rows.tolist() == [2, 5, 6]
    assert list(draft.table["image"]) == ["a.png", "b\nb.png", "c.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_byte_order_mark_is_no_part_of_the_first_name(write_table: Callable[..., Path], encoding: str) -> None:
    draft = read_table(write_table("image,label", "a.png,Ödem", encoding=encoding))
    assert list(draft.table.columns) == ["image", "label"]
    assert draft.table["label"].tolist() == ["Ödem"]


def test_cells_are_stripped_and_nan_is_empty(write_table: Callable[..., Path]) -> None:
    draft = read_table(write_table("image, label ,split,patient", " a.png , x ,NaN,nan", "b.png,none,<NA>,007"))
    assert draft.table.to_numpy().tolist() == [["a.png", "x", "", ""], ["b.png", "none", "", "007"]]


def test_unnamed_columns_are_dropped(write_table: Callable[..., Path]) -> None:
    draft = read_table(write_table(",image,label,", "0,a.png,x,", "1,b.png,y,"))
    assert list(draft.table.columns) == ["image", "label"]


def test_ragged_rows_are_named_and_left_out(write_table: Callable[..., Path]) -> None:
    draft = read_table(write_table("image,label", "a.png,x,1", "b.png,y", "c.png"))
    assert draft.problems == (
        "row 2: expected 2 cells as in the header, but got 3. Put cells that hold a comma in quotes.",
        "row 4: expected 2 cells as in the header, but got 1. Put cells that hold a comma in quotes.",
    )
    assert list(draft.table["image"]) == ["b.png"]


@pytest.mark.parametrize(("separator", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_refused(write_table: Callable[..., Path], separator: str, called: str) -> None:
    path = write_table(separator.join(["image", "label"]), separator.join(["a.png", "x"]))
    with pytest.raises(ManifestError, match=f"separated by commas, but got {called}"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "row of column names, but got an empty row"),
        (b",,\n1,2,3\n", "row of column names, but got an empty row"),
        (b"image,label,image\n", r"name each column once, but got \['image'\]"),
        ("image,label\nä.png,x\n".encode("latin-1"), "UTF-8, but got: 'utf-8' codec"),
        ("image,label\na.png,x\n".encode("utf-16"), "UTF-8, but got"),
        (b'image,label\n"a.png,x\n', "unexpected end of data"),
        (b"image,label\n" + b"x" * 200_000 + b",1\n", "field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_table(path)


def test_missing_and_unknown_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nothing is there"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(ManifestError, match=r"\.csv or \.parquet file or a folder, but got 'table.xlsx'"):
        read_table(tmp_path / "table.xlsx")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ManifestError, match=r"'broken\.parquet' to be a Parquet table"):
        read_table(tmp_path / "broken.parquet")


def test_parquet_cells_become_the_same_text(tmp_path: Path) -> None:
    boxes = [[[1.0, 2.0, 3.0, 4.0]], None]
    stored = pd.DataFrame({"image": ["a.png", "b.png"], "label": [1, 0], "boxes": boxes, "patient": [7.0, None]})
    stored["sure"] = [True, False]
    stored.to_parquet(tmp_path / "table.parquet")
    draft = read_table(tmp_path / "table.parquet")
    assert draft.table.to_numpy().tolist() == [
        ["a.png", "1", "[[1.0, 2.0, 3.0, 4.0]]", "7.0", "1"],
        ["b.png", "0", "", "", "0"],
    ]
    assert draft.rows is not None
    assert draft.rows.tolist() == [2, 3]


def test_a_folder_with_a_manifest_is_that_manifest(write_table: Callable[..., Path]) -> None:
    path = write_table("image,label", "a.png,x")
    assert list(read_table(path.parent).table["image"]) == ["a.png"]


def test_a_folder_per_class_is_a_table(write_image: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("intact/1.png", "defect/deep/2.PNG", "defect/.hidden.png", ".cache/3.png"):
        write_image(name)
    (tmp_path / "defect" / "notes.txt").write_text("not an image")
    draft = read_table(tmp_path)
    assert draft.table.to_numpy().tolist() == [["defect/deep/2.PNG", "defect"], ["intact/1.png", "intact"]]
    assert draft.problems == ()
    assert draft.rows is None


def test_splits_may_come_above_classes(write_image: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("train/b/1.png", "test/a/1.png"):
        write_image(name)
    table = read_table(tmp_path).table
    assert table.to_dict("records") == [
        {"image": "test/a/1.png", "label": "a", "split": "test"},
        {"image": "train/b/1.png", "label": "b", "split": "train"},
    ]


def test_a_folder_says_what_it_cannot_place(write_image: Callable[..., Path], tmp_path: Path) -> None:
    write_image("a/1.png")
    write_image("stray.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_table(tmp_path).problems == (
        "'stray.png': expected each image to be in the folder of its class. Move it there.",
        "'b': expected a folder, but got a link to one. Copy it here.",
        "'b': expected the folder to hold images, but got none.",
        "'empty': expected the folder to hold images, but got none.",
    )


def test_places_are_rows_or_paths() -> None:
    table = pd.DataFrame({"image": ["a.png", "b.png"]})
    assert ImageTable(table, Path(), rows=np.array([2, 5])).place(1) == "row 5"
    assert ImageTable(table, Path(), rows=np.array([2, 5])).place(0, 1) == "rows 2, 5"
    assert ImageTable(table, Path()).place(0, 1) == "'a.png', 'b.png'"


def test_cells_that_are_empty_or_absent_are_empty_text() -> None:
    table = ImageTable(pd.DataFrame({"image": ["a.png"], "mask": [float("nan")]}), Path())
    assert (table.cell(0, "image"), table.cell(0, "mask"), table.cell(0, "boxes")) == ("a.png", "", "")
