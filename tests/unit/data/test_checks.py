"""Problems of a table: all of them, each with its rows, none with a patient's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from softcam.data.checks import list_image_problems, list_problems
from softcam.data.tables import read_table

PARENT = "in the manifest's folder, but '..' leads out of it. Put the file below that folder"


def _list(path: Path, classes: tuple[str, ...] | None = None) -> list[str]:
    return list(list_problems(read_table(path), classes))


def test_a_good_table_has_none(write_table: Callable[..., Path]) -> None:
    path = write_table("image,label,split,patient,boxes,mask", 'a.png,x,train,1,"[[0,0,1,1]]",b.png', "c.png,y,val,2,,")
    assert _list(path) == []
    assert list(list_image_problems(read_table(path))) == []


def test_every_problem_is_found_at_once(write_table: Callable[..., Path]) -> None:
    path = write_table(
        "image,label,split,patient,boxes,mask",
        "a.png,intact,train,SMITH,,",
        "b.png,defekt,test,SMITH,,",
        "./a.png,intact,Train,JONES,,",
        "../x.png,intact,val,,[1],gone.png",
        ",intact,val,LEE,,",
    )
    problems = _list(path, ("intact", "defect"))
    assert problems == [
        "row 6: expected `image` to be a path, but got an empty cell.",
        f"row 5: expected `image` to be {PARENT}.",
        "rows 2, 4: expected each image once, but these rows name the same one. Keep one.",
        "row 5: expected `mask` to be a file, but nothing is there or it is something else.",
        "row 4: expected `split` to be one of ['train', 'val', 'test'], but got 'Train'.",
        "row 5: expected `patient` to be filled, but got an empty cell.",
        "rows 2, 3: expected a patient to be in one split, but got ['test', 'train']. Move the rows into one.",
        "row 5: Expected `boxes` to be a list of [x, y, width, height], but got another shape.",
        "row 3: expected `label` to be one of ['intact', 'defect'], but got 'defekt'. Did you mean 'defect'?",
    ]
    assert not any(name in " ".join(problems) for name in ("SMITH", "JONES", "LEE"))


def test_a_patient_in_one_split_is_fine(write_table: Callable[..., Path]) -> None:
    assert _list(write_table("image,label,split,patient", "a.png,x,train,1", "b.png,y,train,1", "c.png,y,val,2")) == []


def test_an_empty_split_is_a_problem(write_table: Callable[..., Path]) -> None:
    (problem,) = _list(write_table("image,label,split", "a.png,x,train", "b.png,y,"))
    assert problem == "row 3: expected `split` to be one of ['train', 'val', 'test'], but got an empty cell."


@pytest.mark.parametrize(
    ("header", "classes", "expected"),
    [
        ("Image,label", None, ["Expected a column `image`, but got ['Image', 'label']. Rename 'Image'."]),
        ("image,kind", None, ["Expected a column `label`, but got ['image', 'kind']. Add it, or name 0/1 columns"]),
        (
            "file,grade",
            None,
            ["Expected a column `image`, but got ['file', 'grade']. Add it.", "Expected a column `label`"],
        ),
        ("image,x", ("x", "y"), ["Expected a column `y`, but got ['image', 'x']. Add it"]),
        ("image,q", ("x", "y"), ["Expected a column `label`"]),
    ],
)
def test_missing_columns_are_named(
    write_table: Callable[..., Path], header: str, classes: tuple[str, ...] | None, expected: list[str]
) -> None:
    problems = [problem for problem in _list(write_table(header, "a.png,1"), classes) if "column" in problem]
    assert len(problems) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(problems, expected, strict=True))


def test_a_header_alone_is_no_table(write_table: Callable[..., Path], tmp_path: Path) -> None:
    assert _list(write_table("image,label")) == [
        "Expected at least one image, but got none. Check that this is the right file or folder."
    ]
    (tmp_path / "empty").mkdir()
    assert len(_list(tmp_path / "empty")) == 1


def test_unfit_images_are_found_when_opened(write_table: Callable[..., Path], tmp_path: Path) -> None:
    path = write_table("image,label,mask", "a.png,x,", "bad.png,y,", "b.png,y,bad.png", "gone.png,x,", "../z.png,x,")
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    first, second = list_image_problems(read_table(path))
    assert first.startswith("row 3: expected `image` to be readable, but got: ")
    assert second.startswith("row 4: expected `mask` to be readable, but got: ")


def test_annotations_must_fit_their_image(write_table: Callable[..., Path], write_image: Callable[..., Path]) -> None:
    write_image("small.png", size=(8, 7))
    path = write_table(
        "image,label,boxes,mask",
        'a.png,x,"[[0,0,8,8]]",b.png',
        'c.png,x,"[[0,0,8.5,8]]",small.png',
        'd.png,y,"[[0,1,8,8]]",',
        "e.png,y,oops,",
    )
    assert list(list_image_problems(read_table(path))) == [
        "row 3: expected `boxes` to lie in the image's 8x8 pixels, but got one outside.",
        "row 3: expected `mask` to have the image's 8x8 pixels, but got 8x7.",
        "row 4: expected `boxes` to lie in the image's 8x8 pixels, but got one outside.",
    ]


def test_copies_of_an_image_must_not_be_in_two_splits(
    write_table: Callable[..., Path], write_image: Callable[..., Path]
) -> None:
    path = write_table("image,label,split", "a.png,x,train", "copy.png,x,test", "b.png,y,train", "again.png,y,train")
    write_image("copy.png", value=0)
    write_image("again.png", value=40)
    assert list(list_image_problems(read_table(path))) == [
        "rows 2, 3: expected an image to be in one split, but got its copies in ['test', 'train']."
    ]
