"""Manifests: what is read, asked and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from softcam.data.manifest import Manifest, check_manifest, read_manifest, write_manifest
from softcam.errors import ManifestError

TABLE = ("image,label,split,patient,site", "./a.png,y,train,p1,001", "b.png,x,test,p2,002", "c.png,y,train,p3,003")


def test_a_manifest_is_read(write_table: Callable[..., Path], tmp_path: Path) -> None:
    manifest = read_manifest(write_table(*TABLE))
    assert len(manifest) == 3
    assert (manifest.classes, manifest.task, manifest.root) == (("x", "y"), "multiclass", tmp_path)
    assert manifest.paths == [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    assert manifest.targets.tolist() == [1, 0, 1]
    assert manifest.targets.dtype == np.int64
    assert manifest.patients is not None
    assert manifest.patients.tolist() == ["p1", "p2", "p3"]
    assert list(manifest.table["site"]) == ["001", "002", "003"]


def test_classes_give_the_order(write_table: Callable[..., Path]) -> None:
    manifest = read_manifest(write_table(*TABLE), classes=["y", "x", "z"])
    assert manifest.classes == ("y", "x", "z")
    assert manifest.targets.tolist() == [0, 1, 0]


def test_numbers_are_labels(write_table: Callable[..., Path]) -> None:
    path = write_table("image,label", "a.png,1", "b.png,0.0")
    assert read_manifest(path).targets.tolist() == [1, 0]
    named = read_manifest(path, classes=("intact", "defect"))
    assert list(named.table["label"]) == ["defect", "intact"]


def test_label_columns_make_a_multilabel_manifest(write_table: Callable[..., Path]) -> None:
    manifest = read_manifest(write_table("image,u,v", "a.png,1,0.0", "b.png,1,1"), classes=("v", "u"))
    assert manifest.task == "multilabel"
    assert manifest.targets.tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert manifest.targets.dtype == np.float32
    assert manifest.patients is None


def test_annotations_are_read(write_table: Callable[..., Path], tmp_path: Path) -> None:
    path = write_table("image,label,boxes,mask", 'a.png,x,"[[1,2,3,4]]",c.png', "b.png,y,,")
    manifest = read_manifest(path)
    assert [boxes.tolist() for boxes in manifest.boxes] == [[[1, 2, 3, 4]], []]
    assert manifest.masks == [tmp_path / "c.png", None]


def test_a_table_without_annotations_has_none(write_table: Callable[..., Path]) -> None:
    manifest = read_manifest(write_table(*TABLE))
    assert [boxes.shape for boxes in manifest.boxes] == [(0, 4)] * 3
    assert manifest.masks == [None] * 3


def test_a_subset_keeps_classes_and_row_numbers(write_table: Callable[..., Path]) -> None:
    subset = read_manifest(write_table(*TABLE)).subset("train")
    assert list(subset.table["image"]) == ["a.png", "c.png"]
    assert list(subset.table.index) == [0, 1]
    assert subset.classes == ("x", "y")
    assert subset.place(1) == "row 4"


def test_rows_are_taken_in_the_order_asked_for(write_table: Callable[..., Path]) -> None:
    taken = read_manifest(write_table(*TABLE)).take(np.array([2, 0]))
    assert list(taken.table["image"]) == ["c.png", "a.png"]
    assert list(taken.table.index) == [0, 1]
    assert taken.targets.tolist() == [0 if name == "x" else 1 for name in taken.table["label"]]
    assert [taken.place(0), taken.place(1)] == ["row 4", "row 2"]


def test_a_subset_that_is_not_there_is_refused(write_table: Callable[..., Path]) -> None:
    with pytest.raises(ManifestError, match=r"split 'val', but got splits \['train', 'test'\]"):
        read_manifest(write_table(*TABLE)).subset("val")
    with pytest.raises(ManifestError, match=r"split 'train', but got splits \[\]"):
        read_manifest(write_table("image,label", "a.png,x", "b.png,y")).subset("train")


def test_the_digest_sees_what_matters_and_nothing_else(write_table: Callable[..., Path], tmp_path: Path) -> None:
    digest = read_manifest(write_table(*TABLE)).digest()
    assert len(digest) == 64
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for letter in "abc":
        (moved / f"{letter}.png").write_bytes((tmp_path / f"{letter}.png").read_bytes())
    (moved / "other.csv").write_text("\n".join(TABLE).replace("./a", "a").replace("site", "clinic"))
    assert read_manifest(moved / "other.csv", classes=("y", "x")).digest() == digest


@pytest.mark.parametrize(
    ("old", "new"),
    [("b.png,x", "d.png,x"), ("b.png,x", "b.png,y"), ("x,test", "x,val"), ("p2", "p4"), ("./a.png,y", "./a.png,x")],
)
def test_the_digest_changes_with_every_part_of_a_row(write_table: Callable[..., Path], old: str, new: str) -> None:
    lines = [line.replace(old, new) for line in TABLE]
    assert lines != list(TABLE)
    before = read_manifest(write_table(*TABLE), classes=("x", "y")).digest()
    assert read_manifest(write_table(*lines), classes=("x", "y")).digest() != before


def test_the_digest_changes_with_the_bytes_of_the_last_image(
    write_table: Callable[..., Path], write_image: Callable[..., Path]
) -> None:
    manifest = read_manifest(write_table(*TABLE))
    before = manifest.digest()
    write_image("c.png", value=1)
    assert manifest.digest() != before


def test_the_digest_changes_with_a_flag(write_table: Callable[..., Path]) -> None:
    digests = {
        read_manifest(write_table("image,u,v", f"a.png,{flags}"), classes=("u", "v")).digest()
        for flags in ("0,0", "0,1", "1,0", "1,1")
    }
    assert len(digests) == 4


def test_reading_refuses_with_every_problem(write_table: Callable[..., Path]) -> None:
    with pytest.raises(ManifestError, match="2 problem") as caught:
        read_manifest(write_table("image,label", "gone.png,x", "/b.png,y"))
    assert [problem[:5] for problem in caught.value.problems] == ["row 2", "row 3"]


def test_checking_returns_the_same_problems(write_table: Callable[..., Path], tmp_path: Path) -> None:
    path = write_table("image,label", "a.png,x", "gone.png,y", "bad.png,x")
    (tmp_path / "bad.png").write_bytes(b"")
    (quick,) = check_manifest(path)
    assert quick.startswith("row 3: expected `image` to be a file")
    first, second = check_manifest(path, decode=True)
    assert first == quick
    assert second.startswith("row 4: expected `image` to be readable")
    assert len(check_manifest(path, classes=("x", "z"))) == 2
    assert "nothing is there" in check_manifest(tmp_path / "absent.csv")[0]


def test_a_manifest_can_open_its_images(write_table: Callable[..., Path], tmp_path: Path) -> None:
    manifest = read_manifest(write_table(*TABLE))
    assert manifest.check_images() == ()
    (tmp_path / "b.png").write_bytes(b"GIF")
    (problem,) = manifest.check_images()
    assert problem.startswith("row 3: ")


@pytest.mark.parametrize("classes", [[], ["x", "x"], "xy"])
def test_classes_must_be_different_names(write_table: Callable[..., Path], classes: list[str]) -> None:
    path = write_table(*TABLE)
    for function in (read_manifest, check_manifest):
        with pytest.raises(ValueError, match="`classes` to be one or more different names"):
            function(path, classes=classes)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_is_read_again(write_table: Callable[..., Path], tmp_path: Path, suffix: str) -> None:
    folder = write_table(*TABLE).parent
    table = pd.DataFrame(
        {"image": ["a.png", "b.png"], "label": ["x", "y"], "boxes": [[[1, 2, 3, 4]], []], "patient": ["007", "8"]}
    )
    path = folder / f"written{suffix}"
    write_manifest(table, path)
    manifest = read_manifest(path)
    assert [boxes.tolist() for boxes in manifest.boxes] == [[[1, 2, 3, 4]], []]
    assert manifest.patients is not None
    assert manifest.patients.tolist() == ["007", "8"]


def test_nothing_is_left_of_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end in \.csv or \.parquet, but got 'table\.xlsx'"):
        write_manifest(pd.DataFrame(), tmp_path / "table.xlsx")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_manifest(pd.DataFrame({"boxes": [[object()]]}), tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


def test_folders_make_a_manifest(write_image: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("train/b/1.png", "train/a/2.png", "test/a/1.png"):
        write_image(name)
    manifest = read_manifest(tmp_path)
    assert manifest.classes == ("a", "b")
    assert manifest.subset("train").targets.tolist() == [0, 1]
    assert manifest.place(0) == "'test/a/1.png'"


def test_real_photographs_open(shared_data: Path) -> None:
    folder = shared_data / "fundus_samples"
    grades = {"15523_left": "2", "16552_right": "0", "3028_left": "4", "6581_left": "3"}
    table = pd.DataFrame({"image": [f"{name}.png" for name in grades], "label": list(grades.values())})
    manifest = Manifest(table, folder, tuple("01234"), "multiclass")
    assert manifest.check_images() == ()
    assert manifest.targets.tolist() == [2, 0, 4, 3]
