"""The commands of the guides work, line by line, each page in a folder that holds what the page speaks of.

The networks are small and the images few and drawn, so that minutes become seconds; the commands stay as they are.
Commands that need a network, a cluster or another machine are named in `ELSEWHERE` with the test that runs them.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import softcam
from fences import read_blocks
from softcam.cli import main
from softcam.imaging import Preprocessing

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [*sorted((ROOT / "docs" / "how-to").glob("*.md")), ROOT / "docs" / "explanation" / "records.md"]
CLASSES = ("intact", "defect")
LABELS = ("crack", "stain")
BACKBONE = "timm:test_efficientnet"
RECIPE: dict[str, Any] = {
    "name": "mine",
    "data": {"source": "manifest.csv", "classes": list(CLASSES), "image_size": 64, "batch_size": 16},
    "model": {"backbone": BACKBONE, "weights": "none"},
    "stages": [{"epochs": 1}],
}

ELSEWHERE = {
    r"softcam serve": "tests/docs/test_serve.py and tests/integration/test_hostile_clients.py",
    r"(curl|python -c)": "tests/docs/test_serve.py",
    r"softcam .*--engine ray": "tests/integration/test_ray.py",
    r"softcam train .*--devices|torchrun|srun|#": "tests/integration/test_distributed.py",
    r"softcam dicom send": "tests/unit/interop/dicom/test_archive.py",
    r"softcam data prepare": "tests/integration/test_prepare.py",
    r"softcam (train|evaluate) .*(rsna|runs/dr)": "tests/integration/test_medical_path.py",
}
"""Where the commands run that need more than a folder, by what they begin with."""

FEWER = {"--images 500": "--images 10", "--trials 24": "--trials 3"}
"""Of what is drawn or tried in great number, a few."""


def read_lines(page: Path) -> Iterator[str]:
    """Yield the commands of a page."""
    for block in read_blocks(page, "bash"):
        yield from (line.strip() for line in block.splitlines() if line.strip())


def find_elsewhere(line: str) -> str | None:
    return next((test for begin, test in ELSEWHERE.items() if re.match(begin, line)), None)


def shorten(line: str) -> str:
    for many, few in FEWER.items():
        line = line.replace(many, few)
    return line


PAGES = [page for page in GUIDES if any(find_elsewhere(line) is None for line in read_lines(page))]


def draw_images(folder: Path) -> None:
    """Write tables of 52 images, with a class and with labels, few to test on, and folders of some of them."""
    draw, rows = np.random.default_rng(0), []
    for name in ("images", "photographs", "new-images", "drawn"):
        (folder / name).mkdir()
    for number in range(52):
        pixels = draw.integers(0, 90, (72, 80, 3), np.uint8)
        pixels[20:44, 30:54] += np.uint8(140 * (number % 2))
        image = Image.fromarray(pixels)
        image.save(folder / "drawn" / f"{number}.png")
        if number < 3:
            image.save(folder / "images" / f"{number}.png")
            image.save(folder / "new-images" / f"{number}.png")
            image.resize((400, 300)).save(folder / "photographs" / f"{number}.jpg")
        split = "train" if number < 24 else "val" if number < 48 else "test"
        rows.append((f"drawn/{number}.png", CLASSES[number % 2], split, number // 2, number % 2, number // 4 % 2))
    table = pd.DataFrame(rows, columns=["image", "label", "split", "patient", *LABELS])
    table.drop(columns=[*LABELS]).to_csv(folder / "manifest.csv", index=False)
    table.drop(columns="label").to_csv(folder / "findings.csv", index=False)
    shutil.copytree(folder / "drawn", folder / "elpv" / "drawn")
    shutil.copy(folder / "manifest.csv", folder / "elpv")


def save_models(folder: Path) -> None:
    """Write the models that the pages speak of, and the recipes."""
    preprocessing = Preprocessing(size=64).to_dict()
    names = ("model", "dense", "runs/softcam", "runs/sparse", "runs/elpv", "runs/seed0", "runs/seed1", "runs/seed2")
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        black_box = softcam.create_black_box(BACKBONE, num_classes=2, weights="none").eval()
        softcam.save(softcam.convert(black_box), folder / name, classes=CLASSES, preprocessing=preprocessing)
        if name in ("model", "runs/softcam"):
            twin = {"model": "twin", "runs/softcam": "runs/black_box"}[name]
            softcam.save(black_box, folder / twin, classes=CLASSES, preprocessing=preprocessing)
    findings = softcam.convert(black_box, multi_label=True)
    softcam.save(findings, folder / "runs" / "labels", classes=LABELS, preprocessing=preprocessing)
    torch.save(black_box.state_dict(), folder / "my-resnet50.pth")
    for name in ("recipe.yaml", "my-recipe.yaml"):
        (folder / name).write_text(yaml.safe_dump(RECIPE), encoding="utf-8")


def copy_studies(folder: Path) -> None:
    """Lay out the DICOM files that come with pydicom: a study, the same as an archive, a disc, a film."""
    pydicom_data = pytest.importorskip("pydicom.data", reason="DICOM comes with the extra `dicom`")
    files = Path(pydicom_data.get_testdata_file("CT_small.dcm")).parent
    (folder / "study").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(files / name, folder / "study")
    shutil.make_archive(str(folder / "study"), "zip", folder / "study")
    shutil.copy(files / "examples_ybr_color.dcm", folder / "cine.dcm")
    shutil.copytree(files / "dicomdirtests", folder / "media" / "cdrom")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guides")
    draw_images(folder)
    save_models(folder)
    return folder


@pytest.fixture
def place(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A copy of everything, to stand in."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True)
    if request.node.callspec.id == "dicom":
        copy_studies(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in read_lines(page):
        if find_elsewhere(line) is not None:
            continue
        words = shlex.split(shorten(line).replace("/media/", "media/"), comments=True)
        assert words[0] == "softcam", f"{line}: run it here, or name the test that does"
        code = main(words[1:])
        said = capfd.readouterr()
        assert code == 0, f"{line}\n{said.err}"
        if "--out" in words:
            assert Path(words[words.index("--out") + 1]).exists()


def test_what_runs_elsewhere_does() -> None:
    lines = [line for page in GUIDES for line in read_lines(page)]
    for begin, tests in ELSEWHERE.items():
        assert any(re.match(begin, line) for line in lines), f"no page has {begin} any more"
        for name in tests.split(" and "):
            assert (ROOT / name).is_file()
