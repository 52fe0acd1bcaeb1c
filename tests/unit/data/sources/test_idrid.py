"""IDRiD-like folders: the union of masks, cut as the image is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softcam.data.archives import list_members
from softcam.data.downloads import PreparationSettings
from softcam.data.preparation import prepare
from softcam.data.sources.idrid import IDRID, plan
from softcam.errors import ManifestError
from softcam.imaging import decode_image

MakeImage = Callable[..., bytes]

SIZE = (80, 60)


def mask(*pixels: tuple[int, int], size: tuple[int, int] = SIZE, mode: str = "palette") -> bytes:
    """A TIFF whose marked pixels are red, as the published ones are, or 1 in a bilevel image."""
    plane = np.zeros(size[::-1], np.uint8)
    for x, y in pixels:
        plane[y, x] = 1
    image = Image.fromarray(plane, "P") if mode == "palette" else Image.fromarray(plane * 255).convert("1")
    if mode == "palette":
        image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    stream = io.BytesIO()
    image.save(stream, "TIFF")
    return stream.getvalue()


@pytest.fixture
def download(tmp_path: Path, make_image: MakeImage) -> Path:
    root = tmp_path / "A. Segmentation"
    files = {
        "1. Original Images/a. Training Set/IDRiD_01.jpg": make_image(1, size=SIZE),
        "1. Original Images/b. Testing Set/IDRiD_55.jpg": make_image(2, size=SIZE),
        "1. Original Images/b. Testing Set/IDRiD_56.jpg": make_image(3, size=SIZE),
        "2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/IDRiD_01_MA.tif": mask((40, 30)),
        "2. All Segmentation Groundtruths/a. Training Set/3. Hard Exudates/IDRiD_01_EX.tif": mask((20, 30), mode="1"),
        "2. All Segmentation Groundtruths/a. Training Set/5. Optic Disc/IDRiD_01_OD.tif": mask((60, 30)),
        "2. All Segmentation Groundtruths/b. Testing Set/1. Microaneurysms/IDRiD_55_MA.tif": mask(),
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_masks_are_united_and_cut_as_the_image_is(download: Path, tmp_path: Path) -> None:
    found = prepare(IDRID, download, tmp_path / "out", PreparationSettings(size=27, workers=1))
    assert found.skipped == (("1. Original Images/b. Testing Set/IDRiD_56.jpg", "no mask of a lesion"),)
    table = found.manifest.table.set_index("patient")
    assert table["label"].to_dict() == {"IDRiD_01": "referable", "IDRiD_55": "healthy"}
    assert table["split"].tolist() == ["test", "test"]
    assert table["mask"].to_dict() == {"IDRiD_01": "masks/IDRiD_01.png", "IDRiD_55": ""}
    row = table.loc["IDRiD_01"]
    pixels = decode_image(tmp_path / "out/masks/IDRiD_01.png").pixels
    scale = 27 / int(row["crop_side"])
    for x, y in ((40, 30), (20, 30)):
        column, line = ((x + 0.5 - int(row["crop_x"])) * scale, (y + 0.5 - int(row["crop_y"])) * scale)
        assert pixels[int(line), int(column)] == 255, (x, y)
    disc = int((60.5 - int(row["crop_x"])) * scale)
    assert pixels[:, disc].max() == 0, "the optic disc is no lesion"
    assert 2 <= (pixels > 0).sum() <= 8
    assert found.manifest.check_images() == ()


def test_a_mask_of_another_size_and_one_without_image_are_named(download: Path, tmp_path: Path) -> None:
    (download / "IDRiD_55_HE.tif").write_bytes(mask((1, 1), size=(40, 30)))
    (download / "IDRiD_99_HE.tif").write_bytes(mask((1, 1)))
    found = prepare(IDRID, download, tmp_path / "out", PreparationSettings(size=27, workers=1))
    assert ("IDRiD_99_HE.tif", "no image of this name") in found.skipped
    assert (
        "1. Original Images/b. Testing Set/IDRiD_55.jpg",
        "a mask has 40x30 pixels, its image 80x60",
    ) in found.skipped


def test_a_folder_without_masks_is_refused(tmp_path: Path, make_image: MakeImage) -> None:
    (tmp_path / "IDRiD_01.jpg").write_bytes(make_image())
    with pytest.raises(ManifestError, match=r"masks such as <name>_MA\.tif"):
        plan(list_members(tmp_path), PreparationSettings())
