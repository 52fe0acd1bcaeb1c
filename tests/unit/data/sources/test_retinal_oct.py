"""Retinal OCT: the tree, classes in file names, patients who are in both official folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from softcam.data.archives import Member
from softcam.data.downloads import PreparationSettings
from softcam.data.preparation import prepare
from softcam.data.sources.retinal_oct import RETINAL_OCT, convert, plan
from softcam.errors import ManifestError
from softcam.imaging import decode_image

MakeImage = Callable[..., bytes]


def member(name: str) -> Member:
    return Member(name, None, name, 1)


def scans() -> list[Member]:
    """Twenty patients in the training folder, two of whom are also in the test folder."""
    kinds = ("NORMAL", "DRUSEN", "DME", "CNV")
    pairs = [(number, scan) for number in range(100, 120) for scan in (1, 2)]
    train = [f"CellData/OCT /train/{kinds[n % 4]}/{kinds[n % 4]}-{n}-{scan}.jpeg" for n, scan in pairs]
    test = ["CellData/OCT /test/NORMAL/NORMAL-100-9.jpeg", "CellData/OCT /test/CNV/CNV-101-9.jpeg"]
    other = ["CellData/chest_xray/train/NORMAL/NORMAL-1003233-0001.jpeg", "CellData/OCT /val/NORMAL/NORMAL-1-1.jpeg",
             "CellData/OCT /train/CNV/DME-3-1.jpeg", "CellData/OCT /train/CNV/CNV-3.jpeg", "x.jpeg"]  # fmt: skip
    return [member(name) for name in (*train, *test, *other)]


def table(labels: str, seed: int = 0) -> pd.DataFrame:
    found = plan(scans(), PreparationSettings(labels=labels, seed=seed))
    return pd.DataFrame([order.row | {"stem": order.stem} for order in found.orders])


def test_without_splits_no_patient_of_the_test_folder_is_learned_from() -> None:
    found = table("classes")
    assert set(found["label"]) == {"normal", "drusen", "dme", "cnv"}
    # Patients 100 and 101 (drusen in training, CNV in testing) have two scans each in the training folder.
    assert len(found) == 36 + 2
    assert set(found[found["split"] == "test"]["stem"]) == {"test_CNV_CNV-101-9", "test_NORMAL_NORMAL-100-9"}
    assert (found.groupby("patient")["split"].nunique() == 1).all()
    assert found["split"].value_counts()["val"] == pytest.approx(3.6, abs=1)
    assert not found["stem"].str.contains("chest|val").any()


def test_the_binary_task_leaves_other_classes_out_but_not_their_patients() -> None:
    found = table("drusen")
    assert set(found["label"]) == {"normal", "drusen"}
    # The drusen of patient 101 stay out, although in the test folder that patient is of another class.
    assert "101" not in set(found["patient"])
    assert len(found) == (20 - 4) + 1
    notes = plan(scans(), PreparationSettings()).notes
    assert notes["training images left out because their patient is in the test folder"] == 4
    assert notes["images of other classes"] == 21


def test_the_seed_draws_another_split() -> None:
    assert not table("classes", seed=0)["split"].equals(table("classes", seed=1)["split"])


def test_what_holds_no_scans_is_refused() -> None:
    with pytest.raises(
        ManifestError, match=r"scans such as train/NORMAL.*none among 1 files\. Unpack 'a/OCT\.tar' first"
    ):
        plan([member("a/OCT.tar")], PreparationSettings())


def test_scans_are_copied_as_they_are_or_made_smaller(make_image: MakeImage) -> None:
    content = make_image(size=(80, 50), grey=True)
    product = convert("x", [content], None)
    assert product.files == {"images/x.jpeg": content}
    assert product.facts == {"width": 80, "height": 50}
    smaller = decode_image(convert("x", [content], 25).files["images/x.png"])
    assert (smaller.width, smaller.height, smaller.pixels.ndim) == (40, 25, 2)


@pytest.mark.slow
def test_a_tree_becomes_a_manifest(tmp_path: Path, make_image: MakeImage) -> None:
    for number in range(8):
        for place, (folder, kind) in enumerate((("train", "NORMAL"), ("train", "DRUSEN"), ("test", "NORMAL"))):
            path = tmp_path / "OCT" / folder / kind / f"{kind}-{10 * number + len(folder)}-1.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_image(3 * number + place, grey=True))
    (tmp_path / "OCT/train/NORMAL/NORMAL-999-1.jpeg").write_bytes(b"cut off")
    found = prepare(RETINAL_OCT, tmp_path / "OCT", tmp_path / "out", PreparationSettings(workers=2))
    assert [name for name, _ in found.skipped] == ["train/NORMAL/NORMAL-999-1.jpeg"]
    assert found.manifest.classes == ("normal", "drusen")
    assert found.record["counts"]["test"] == {"normal": 8}
    assert len(found.manifest) == 24
    assert found.manifest.check_images() == ()


@pytest.mark.parametrize(
    ("labels", "counts", "test"),
    [
        ("drusen", {"train": 27_430, "val": 7_532, "test": 498}, {"normal": 250, "drusen": 248}),
        (
            "classes",
            {"train": 14_894, "val": 2_306, "test": 998},
            {"normal": 250, "drusen": 248, "dme": 250, "cnv": 250},
        ),
    ],
)
def test_the_published_splits_have_the_papers_counts(
    shared_data: Path, labels: str, counts: dict[str, int], test: dict[str, int]
) -> None:
    folder = shared_data / "authors_splits" / "Retinal_OCT" / ("multiclass" if labels == "classes" else "")
    names = pd.concat([pd.read_csv(folder / f"{split}.csv")["filename"] for split in counts])
    # The official files are JPEG, whatever the published tables call them.
    members = [member("OCT/" + name.replace(".png", ".jpeg")) for name in names]
    found = plan(members, PreparationSettings(labels=labels, splits=shared_data / "authors_splits"))
    rows = pd.DataFrame([order.row for order in found.orders])
    assert found.skipped == ()
    assert rows["split"].value_counts().to_dict() == counts
    assert rows[rows["split"] == "test"]["label"].value_counts().to_dict() == test
    assert (rows.groupby("patient")["split"].nunique() == 1).all()


def test_splits_with_a_wrong_class_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(f"filename,drusen\n{split}/NORMAL/NORMAL-1-1.png,1\n")
    with pytest.raises(ManifestError, match=r"the class of its folder, but got 'train/NORMAL/NORMAL-1-1\.png' as '1'"):
        plan([], PreparationSettings(splits=tmp_path))
