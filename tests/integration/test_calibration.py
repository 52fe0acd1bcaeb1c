"""Calibrate, explain and evaluate through the real command line on a small drawn data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from command_line import run

CLASSES = ["blank", "square"]
RECIPE = """\
name: tiny
data: {{source: {source}, image_size: 64, batch_size: 8}}
model: {{backbone: "timm:resnet10t", weights: none}}
optimizer: {{lr: 0.003}}
stages:
  - {{epochs: 2}}
"""


def draw(path: Path, *, bright: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 90, (72, 80, 3), dtype=np.uint8)
    pixels[20:44, 30:54] += np.uint8(max(0, generator.normal(45 if bright else 15, 15)))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    rows = []
    for index in range(120):
        draw(folder / f"images/{index:03}.png", bright=index % 2 == 1, seed=index)
        split = "train" if index < 48 else "val" if index < 84 else "test"
        rows.append((f"images/{index:03}.png", CLASSES[index % 2], split))
    pd.DataFrame(rows, columns=["image", "label", "split"]).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def trained(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(RECIPE.format(source=manifest))
    done = run("train", "--config", folder / "tiny.yaml", "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def calibrated(trained: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "model"
    done = run("calibrate", trained, "--data", manifest, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "sets with the true class (promised 0.9)" in done.stdout
    return out


def explain(model: Path, inputs: Path, out: Path, *flags: object) -> tuple[pd.DataFrame, str]:
    done = run("explain", model, inputs, "--out", out, "--no-overlays", "--no-arrays", *flags)
    assert done.returncode in (0, 1), done.stderr
    return pd.read_csv(out / "predictions.csv", keep_default_na=False), done.stdout


def test_training_notes_what_images_were_like(trained: Path) -> None:
    inputs = json.loads((trained / "model" / "config.json").read_text())["inputs"]
    assert (inputs["n"], inputs["height"][0], inputs["width"][-1], inputs["channels"]) == (48, 72, 80, [3])
    assert inputs["features"]["n"] == 36


def test_every_image_is_reported_as_before(trained: Path, calibrated: Path, manifest: Path, tmp_path: Path) -> None:
    before, _ = explain(trained, manifest.parent / "images", tmp_path / "before")
    after, _ = explain(calibrated, manifest.parent / "images", tmp_path / "after")
    assert list(after["predicted"]) == list(before["predicted"])
    assert "prediction_set" not in before
    numbers = [name for name in before if name.startswith("logit_")]
    assert after[numbers].equals(before[numbers])
    record = json.loads((calibrated / "config.json").read_text())["calibration"]
    scaled = np.exp(after[numbers].to_numpy(float) / record["temperature"])
    expected = scaled / scaled.sum(1, keepdims=True)
    np.testing.assert_allclose(after[[f"prob_{name}" for name in CLASSES]], expected, rtol=1e-5)
    kept = [
        ";".join(name for share, name in sorted(zip(row, CLASSES, strict=True), reverse=True) if 1 - share <= limit)
        for row in expected
        for limit in [record["quantile"]]
    ]
    assert list(after["prediction_set"]) == kept
    labels = pd.read_csv(manifest).set_index("image")
    test = [f"images/{Path(name).name}" for name in after["image"]]
    is_test = labels.loc[test, "split"].to_numpy() == "test"
    hits = [label in members.split(";") for label, members in zip(labels.loc[test, "label"], kept, strict=True)]
    assert record["verification"]["coverage"]["value"] == pytest.approx(np.mean(np.array(hits)[is_test]))


def test_in_place_and_again_gives_the_same(trained: Path, calibrated: Path, manifest: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    first = run("calibrate", trained, "--data", manifest, "--out", copy, "--json")
    assert first.returncode == 0, first.stderr
    assert (copy / "config.json").read_bytes() == (calibrated / "config.json").read_bytes()
    again = run("calibrate", copy, "--data", manifest, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (copy / "config.json").read_bytes() == (calibrated / "config.json").read_bytes()
    found = json.loads(first.stdout)
    assert set(found) >= {"temperature", "method", "alpha", "quantile", "n", "fit", "verification", "notes", "out"}
    assert found["verification"]["changed_decisions"] == 0
    assert set(found["verification"]["ece"]) == {"raw", "calibrated"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "holdout"], "split 'holdout', but got splits"),
        (["--alpha", 0.01], "at least 99 images in split 'val' for an alpha of 0.01, but got 36"),
        (["--alpha", 1.5], "`alpha` to lie in (0, 1)"),
    ],
)
def test_says_what_is_wrong(trained: Path, manifest: Path, tmp_path: Path, flags: list[object], message: str) -> None:
    before = (trained / "model" / "config.json").read_bytes()
    done = run("calibrate", trained, "--data", manifest, "--out", tmp_path / "new", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "new").exists()
    assert (trained / "model" / "config.json").read_bytes() == before


def test_unknown_labels_are_named(trained: Path, manifest: Path, tmp_path: Path) -> None:
    table = pd.read_csv(manifest).replace("square", "circle")
    table.to_csv(manifest.parent / "other.csv", index=False)
    done = run("calibrate", trained, "--data", manifest.parent / "other.csv", "--out", tmp_path / "new")
    assert done.returncode == 2
    assert "circle" in done.stderr


def test_images_of_another_kind_are_told_or_refused(calibrated: Path, manifest: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    draw(inputs / "usual.png", bright=True, seed=1000)
    noise = np.random.default_rng(0).integers(0, 255, (300, 80), dtype=np.uint8)
    Image.fromarray(noise).save(inputs / "unlike.png")
    table, told = explain(calibrated, inputs, tmp_path / "warned")
    assert "2 explained, 0 failed, 1 with warnings" in told
    found = dict(zip(table["image"], table["warnings"], strict=True))
    assert found["usual.png"] == ""
    assert [text.split(":")[0] for text in found["unlike.png"].split(";")] == ["size", "intensity", "features"]
    record = json.loads((tmp_path / "warned" / "run.json").read_text())
    assert record["counts"] == {"inputs": 2, "done": 2, "failed": 0, "warned": 1}
    assert record["arguments"]["checks"]["features"] == "warn"
    table, told = explain(calibrated, inputs, tmp_path / "refused", "--checks", "refuse")
    assert "1 explained, 1 failed, 0 with warnings" in told
    assert table.set_index("image").loc["unlike.png", "error"].startswith("refused, size: height 300")
    table, told = explain(calibrated, inputs, tmp_path / "off", "--checks", "off")
    assert "warnings" not in table
    assert "warnings" not in told


def test_evaluation_holds_the_promise_against_the_measurement(calibrated: Path, manifest: Path, tmp_path: Path) -> None:
    done = run("evaluate", calibrated, "--data", manifest, "--out", tmp_path, "--explained", 2, "--methods", "evidence")
    assert done.returncode == 0, done.stderr
    assert "90 % were promised" in done.stdout.replace("\N{NO-BREAK SPACE}", " ")
    found = json.loads((tmp_path / "metrics.json").read_text())["uncertainty"]
    record = json.loads((calibrated / "config.json").read_text())["calibration"]
    assert found["temperature"] == record["temperature"]
    assert found["sets"]["coverage"]["value"] == record["verification"]["coverage"]["value"]
    assert (tmp_path / "figures" / "selective.png").is_file()
    assert 'id="uncertainty"' in (tmp_path / "report.html").read_text()
