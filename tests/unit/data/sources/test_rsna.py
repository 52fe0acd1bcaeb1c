"""RSNA: several boxes per patient, scaled to the written image; radiographs that are neither normal nor pneumonia."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from softcam.data import pictures
from softcam.data.archives import Member, list_members, read_table
from softcam.data.downloads import PreparationSettings
from softcam.data.preparation import prepare
from softcam.data.sources.rsna import LABEL_TABLE, RSNA, SPLIT_FILES, complete, convert, plan, read_labels
from softcam.errors import ImageError, ManifestError
from softcam.imaging import decode_image

MakeImage = Callable[..., bytes]

HEAD = "patientId,x,y,width,height,Target\n"
LABELS = HEAD + "a,,,,,0\nb,,,,,0\nc,10,20,40,30,1\nc,60,10,20.5,50,1\nd,0,0,100,80,1\n"
DETAILS = "patientId,class\na,Normal\nb,No Lung Opacity / Not Normal\nc,Lung Opacity\nc,Lung Opacity\nd,Lung Opacity\n"


@pytest.fixture
def download(tmp_path: Path, make_image: MakeImage) -> Path:
    folder = tmp_path / "download"
    (folder / "stage_2_train_images").mkdir(parents=True)
    (folder / "stage_2_test_images").mkdir()
    for number, name in enumerate("abcd"):
        content = make_image(number, size=(100, 80), format="PNG", grey=True)
        (folder / f"stage_2_train_images/{name}.dcm").write_bytes(content)
    (folder / "stage_2_test_images/z.dcm").write_bytes(b"never read")
    (folder / LABEL_TABLE).write_text(LABELS)
    (folder / "stage_2_detailed_class_info.csv").write_text(DETAILS)
    return folder


def test_boxes_are_scaled_to_the_written_image(download: Path, tmp_path: Path) -> None:
    found = prepare(RSNA, download, tmp_path / "out", PreparationSettings(size=40, workers=1))
    assert found.skipped == ()
    table = found.manifest.table.set_index("patient")
    assert table["label"].to_dict() == {"a": "normal", "c": "pneumonia", "d": "pneumonia"}
    boxes = dict(zip(found.manifest.table["patient"], found.manifest.boxes, strict=True))
    assert boxes["a"].shape == (0, 4)
    assert boxes["c"].tolist() == [[5, 10, 20, 15], [30, 5, 10.25, 25]]
    assert boxes["d"].tolist() == [[0, 0, 50, 40]]
    image = decode_image(found.manifest.paths[0])
    assert (image.width, image.height) == (50, 40)
    assert table.loc["c", ["original_width", "original_height", "detail"]].tolist() == ["100", "80", "Lung Opacity"]
    assert found.manifest.check_images() == ()
    assert found.record["notes"] == {"images that are not normal but show no opacity": 1}


def test_what_is_not_normal_is_kept_on_request(download: Path) -> None:
    found = plan(list_members(download), PreparationSettings(labels="pneumonia-all"))
    assert {order.stem: order.row["label"] for order in found.orders} == {
        "a": "other", "b": "other", "c": "pneumonia", "d": "pneumonia",
    }  # fmt: skip
    (download / "stage_2_detailed_class_info.csv").unlink()
    assert len(plan(list_members(download), PreparationSettings(labels="pneumonia-all")).orders) == 4
    with pytest.raises(ManifestError, match=r"2 are not in it\. Download it as well, or prepare with the labels"):
        plan(list_members(download), PreparationSettings())


def test_a_16_bit_radiograph_keeps_its_depth() -> None:
    pixels = np.arange(80 * 100, dtype=np.uint16).reshape(80, 100) * 8
    product = convert("x", [pictures.encode(pixels)], None)
    assert np.array_equal(decode_image(product.files["images/x.png"]).pixels, pixels)
    assert product.facts == {"width": 100, "height": 80, "written": [100, 80]}


def test_a_box_beyond_the_image_is_an_error_of_that_image() -> None:
    facts = {"width": 100, "height": 80, "written": [50, 40]}
    assert complete({"boxes": [[60, 30, 40, 50]]}, facts)["boxes"] == [[30, 15, 20, 25]]
    for box in ([61, 30, 40, 50], [60, 31, 40, 50]):
        with pytest.raises(ImageError, match="beyond the 100x80 pixels"):
            complete({"boxes": [box]}, facts)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("e,,,,,1\n", "row 7: expected a box where Target is 1"),
        ("e,1,2,3,4,0\n", "row 7"),
        ("e,1,2,,,0\n", "row 7"),
        ("a,1,2,3,4,1\n", "row 7"),
        ("e,1,2,0,4,1\n", "row 7"),
        ("e,-1,2,3,4,1\n", "row 7"),
        ("e,nan,2,3,4,1\n", "row 7"),
        ("e,,,,,2\n", "row 7"),
        (",,,,,0\n", "row 7"),
    ],
)
def test_labels_that_contradict_themselves_are_named_by_row(line: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_labels((LABELS + line).encode())


def test_missing_and_unlabelled_images_are_named(download: Path) -> None:
    (download / "stage_2_train_images/c.dcm").rename(download / "stage_2_train_images/e.dcm")
    found = plan(list_members(download), PreparationSettings())
    assert found.skipped == (
        ("c", "not in the download"),
        ("stage_2_train_images/e.dcm", "no row in stage_2_train_labels.csv"),
    )


def test_a_patient_of_two_classes_is_refused(download: Path) -> None:
    (download / "stage_2_detailed_class_info.csv").write_text(DETAILS + "a,Lung Opacity\n")
    with pytest.raises(ManifestError, match="each patient one class, but 1 have several"):
        plan(list_members(download), PreparationSettings())


def write_splits(folder: Path, **rows: str) -> Path:
    folder.mkdir(exist_ok=True)
    for split in SPLIT_FILES:
        (folder / f"{split}.csv").write_text("filename,x,y,width,height,type,bin_target,target\n" + rows.get(split, ""))
    return folder


def test_published_splits_take_all_boxes_from_the_official_table(download: Path, tmp_path: Path) -> None:
    folder = write_splits(
        tmp_path / "s", train="a.png,,,,,T,0,0\n", val="d.png,1,2,3,4,V,1,2\n", test="c.png,1,2,3,4,T,1,2\n"
    )
    found = plan(list_members(download), PreparationSettings(splits=folder))
    assert {order.stem: order.row["split"] for order in found.orders} == {"a": "train", "d": "val", "c": "test"}
    assert len(next(order for order in found.orders if order.stem == "c").row["boxes"]) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [("e.png,,,,,T,0,0\n", "a row for each image .* 1, 'e' first"), ("a.png,,,,,T,1,2\n", "to agree")],
)
def test_splits_that_do_not_fit_the_labels_are_refused(download: Path, tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        plan(list_members(download), PreparationSettings(splits=write_splits(tmp_path / "s", train=row)))


@pytest.fixture(scope="module")
def official(shared_data: Path) -> dict[str, dict[str, Any]]:
    """What the official label file says of each patient."""
    return read_labels(read_table(list_members(shared_data / "rsna_official"), LABEL_TABLE))


def test_the_official_label_file_has_its_known_counts(official: dict[str, dict[str, Any]]) -> None:
    labels = official
    boxes = [box for entry in labels.values() for box in entry["boxes"]]
    assert (len(labels), sum(entry["target"] == 1 for entry in labels.values()), len(boxes)) == (26_684, 6_012, 9_555)
    assert max(len(entry["boxes"]) for entry in labels.values()) == 4
    edges = np.array(boxes)
    assert (edges[:, :2] >= 0).all()
    assert (edges[:, :2] + edges[:, 2:] <= 1024).all()


@pytest.mark.slow
def test_official_boxes_are_twice_those_in_512_pixels(shared_data: Path, official: dict[str, dict[str, Any]]) -> None:
    half = pd.read_csv(shared_data / "rsna_samples/boxes_512px.csv")
    facts = {"width": 1024, "height": 1024, "written": [512, 512]}
    for name, rows in half.groupby("patientId"):
        boxes = complete(official[str(name)], facts)["boxes"]
        assert sorted(boxes) == sorted(rows[["x", "y", "width", "height"]].to_numpy().tolist())


def test_the_published_splits_have_the_papers_counts(shared_data: Path, official: dict[str, dict[str, Any]]) -> None:
    members = [Member(f"stage_2_train_images/{name}.dcm", None, name, 1) for name in official]
    members += list_members(shared_data / "rsna_official")
    found = plan(members, PreparationSettings(splits=shared_data / "authors_splits"))
    assert found.skipped == ()
    table = pd.DataFrame([order.row for order in found.orders])
    assert table["split"].value_counts().to_dict() == {"train": 11_369, "val": 1_264, "test": 2_230}
    assert (table["label"] == "pneumonia").groupby(table["split"]).sum().to_dict() == {
        "test": 902,
        "train": 4_599,
        "val": 511,
    }
    positive = table[table["label"] == "pneumonia"]
    assert (positive["boxes"].map(len) >= 1).all()
    assert positive["boxes"].map(len).sum() == 9_555
