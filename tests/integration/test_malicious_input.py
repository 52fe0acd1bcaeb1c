"""Data that would run code, leave its folder or speak to a spreadsheet or a browser: every way in is tried."""

from __future__ import annotations

import csv
import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import softcam
from softcam.cli import main

RECIPE = """\
name: tiny
data: {{source: {source}, image_size: 96, batch_size: 8}}
model: {{backbone: "timm:test_resnet", weights: none}}
optimizer: {{lr: 0.003}}
stages:
  - {{epochs: {epochs}}}
"""
FORMULA = '=HYPERLINK("x")!A1.png'
MARKUP = "<img src=x onerror=alert(1)>.png"


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self._marker}'",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What is there afterwards if code was run."""
    return tmp_path / "run-by-data"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    black_box = softcam.create_black_box("timm:test_resnet", weights="none", num_classes=2).eval()
    return softcam.save(softcam.convert(black_box), tmp_path_factory.mktemp("model") / "model", classes=["a", "b"])


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with path.open("wb") as stream:
        Image.fromarray(pixels).save(stream, "PNG")
    return path


def prepare(folder: Path) -> Path:
    """Draw a table of images and return a recipe that learns from it."""
    rows = []
    for number in range(24):
        draw(folder / "images" / f"{number}.png", number)
        split = "train" if number < 12 else "val" if number < 18 else "test"
        rows.append({"image": f"images/{number}.png", "label": "ab"[number % 2], "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(source=folder / "manifest.csv", epochs=1), encoding="utf-8")
    return recipe


def fail(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_the_payload_would_run(marker: Path) -> None:
    pickle.loads(pickle.dumps(Payload(marker)))  # noqa: S301 - made here, to show that it works
    assert marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_a_pickle_in_a_bundle_is_refused(
    name: str, model: Path, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(model, bundle)
    (bundle / "model.safetensors").unlink()
    torch.save({"w": Payload(marker)}, bundle / name)
    message = fail(capsys, "explain", bundle, draw(tmp_path / "a.png"), "--out", tmp_path / "out")
    assert "safetensors" in message
    assert not marker.exists()


def test_a_checkpoint_that_was_exchanged_does_not_run(
    marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = prepare(tmp_path)
    words = ["train", "--config", recipe, "--out", tmp_path / "run"]
    assert main([str(word) for word in words]) == 0
    # As if it had been ended before its end: the same command would read the checkpoint.
    (tmp_path / "run" / "run.json").unlink()
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "extra": Payload(marker)}, checkpoint)
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except pickle.UnpicklingError:
        code = 2
    assert code == 2
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.ckpt"])
def test_a_file_of_weights_does_not_run(
    name: str, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = softcam.create_black_box("timm:test_resnet", weights="none").state_dict()
    torch.save({"state_dict": state, "callback": Payload(marker)}, tmp_path / name)
    words = ("train", "--config", prepare(tmp_path), "--weights", tmp_path / name, "--out", tmp_path / "run")
    message = fail(capsys, *words)
    assert "can run any code it carries" in message
    assert message.count("\n") == 1
    assert not marker.exists()
    torch.save({"state_dict": state}, tmp_path / name)
    assert main([str(word) for word in words]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "stages: !!python/object/apply:os.system ['touch {marker}']",
        "stages: [{{epochs: !!python/object/new:os.system ['touch {marker}']}}]",
    ],
)
def test_a_recipe_is_data(text: str, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.format(marker=marker), encoding="utf-8")
    fail(capsys, "train", "--config", recipe, "--out", tmp_path / "run")
    assert not marker.exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["explain", "evaluate", "serve", "sweep"])
def test_a_file_of_options_is_data(
    command: str, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tmp_path / "options.yaml"
    options.write_text(f"out: !!python/object/apply:os.system ['touch {marker}']\n", encoding="utf-8")
    fail(capsys, command, "--config", options)
    assert not marker.exists()


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png", "link.png"])
def test_a_manifest_does_not_lead_out(
    path: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "secret.png")
    folder = tmp_path / "data"
    draw(folder / "good.png", 1)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    table = folder / "manifest.csv"
    pd.DataFrame({"image": ["good.png", path], "label": ["a", "b"]}).to_csv(table, index=False)
    assert main(["explain", str(model), str(table), "--out", str(tmp_path / "out"), "--no-overlays"]) == 1
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert rows["status"].tolist() == ["ok", "failed"]
    assert main(["data", "check", str(table)]) != 0


def test_an_archive_does_not_lead_out(model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "picture.png")
    content = (tmp_path / "picture.png").read_bytes()
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("good.png", content)
        archive.writestr("../../escaped.png", content[:-12] + b"\0" + content[-12:])
        archive.writestr("/absolute.png", content + b"\0")
        archive.writestr(link, "/etc/passwd")
    out = tmp_path / "deep" / "out"
    assert main(["explain", str(model), str(tmp_path / "study.zip"), "--out", str(out), "--no-overlays"]) == 1
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"picture.png", "study.zip", "deep"}
    rows = pd.read_csv(out / "predictions.csv")
    assert (rows["status"] == "ok").sum() == 1


def test_names_are_no_formulas_and_no_markup(model: Path, tmp_path: Path) -> None:
    draw(tmp_path / "images" / FORMULA.replace("/", ""), 1)
    draw(tmp_path / "images" / MARKUP.replace("/", ""), 2)
    (tmp_path / "images" / "@SUM(1).png").write_bytes(b"words")
    out = tmp_path / "out"
    assert main(["explain", str(model), str(tmp_path / "images"), "--out", str(out), "--no-overlays"]) == 1
    for name in ("predictions.csv", "failures.csv"):
        for row in csv.reader(io.StringIO((out / name).read_text(encoding="utf-8"))):
            assert not row[0].startswith(("=", "+", "-", "@", "\t")), row


def test_a_page_is_no_page_of_a_name(model: Path, tmp_path: Path) -> None:
    pixels = np.zeros((40, 40), np.uint8)
    predictor = softcam.Predictor(model, classes=["a", "</script><script>alert(1)</script>"], backend="torch")
    page = softcam.view(predictor([pixels]), [pixels], predictor=predictor, name="<b>x").page
    assert "<script>alert(1)" not in page
    assert "<b>x" not in page


def test_an_evidence_file_is_read_without_its_objects(marker: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "evidence.npz", maps=np.array([Payload(marker)], dtype=object))
    with (
        np.load(tmp_path / "evidence.npz", allow_pickle=False) as kept,
        pytest.raises(ValueError, match="allow_pickle"),
    ):
        kept["maps"]
    assert not marker.exists()
    source = (Path(softcam.__file__).parent).rglob("*.py")
    loads = [path for path in source if "allow_pickle=True" in path.read_text(encoding="utf-8")]
    assert loads == []
