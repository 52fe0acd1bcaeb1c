"""Every kind of labels and of truth, from the table to the report, by the real commands on drawn data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.bundle import read_config
from softcam.cli.program import main

RECIPE = """\
name: tiny
data: {{source: {source}, classes: {classes}, image_size: 64, batch_size: 8, ordinal: {ordinal}}}
model: {{backbone: "timm:test_resnet", weights: none}}
optimizer: {{lr: 0.01}}
stages:
  - {{epochs: 2}}
"""
COUNT = 48
Row = dict[str, Any]


def draw(path: Path, seed: int, spots: list[tuple[int, int]]) -> None:
    """Write a noisy image with bright squares of 20 px."""
    pixels = np.random.default_rng(seed).integers(0, 90, (64, 64), dtype=np.uint8)
    for x, y in spots:
        pixels[y : y + 20, x : x + 20] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write(folder: Path, describe: Callable[[int], tuple[list[tuple[int, int]], Row]]) -> Path:
    """Write images with what is said of each, a half for testing."""
    rows = []
    for number in range(COUNT):
        spots, row = describe(number)
        draw(folder / f"images/{number:02}.png", number, spots)
        split = ("train", "test", "val", "test")[number // 4 % 4]
        rows.append({"image": f"images/{number:02}.png", "split": split, "patient": f"p{number // 2}", **row})
        if row.get("mask"):
            mask = np.zeros((64, 64), np.uint8)
            for x, y in spots:
                mask[y : y + 20, x : x + 20] = 255
            (folder / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / row["mask"])
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def run_all(folder: Path, manifest: Path, classes: list[str], *, ordinal: bool = False) -> tuple[dict[str, Any], Path]:
    """Train both twins, evaluate and explain; return the metrics and the folder of everything."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(source=manifest, classes=json.dumps(classes), ordinal=str(ordinal).lower()))
    assert main(["train", "--config", str(recipe), "--out", str(folder / "run")]) == 0
    assert main(["train", "--config", str(recipe), "--black-box", "--out", str(folder / "twin")]) == 0
    out = folder / "evaluation"
    arguments = ["evaluate", str(folder / "run"), "--black-box", str(folder / "twin"), "--data", str(manifest)]
    arguments += ["--out", str(out), "--explained", "6", "--explained-slowly", "2"]
    methods = ["--methods", "evidence", "evidence_margin", "grad_cam", "random"]
    assert main([*arguments, *methods, "--measures", "localization", "curves", "infidelity"]) == 0
    images = [str(path) for path in sorted((manifest.parent / "images").iterdir())[:3]]
    assert main(["explain", str(folder / "run/model"), *images, "--out", str(folder / "explained")]) == 0
    return json.loads((out / "metrics.json").read_text()), folder


def find_localised(folder: Path) -> bool:
    return "pointing_game" in set(pd.read_csv(folder / "evaluation/benchmark.csv")["metric"])


def test_two_classes_with_boxes(tmp_path: Path) -> None:
    def describe(number: int) -> tuple[list[tuple[int, int]], Row]:
        spots = [(4 + number % 8, 30), (36, 4 + number % 8)] if number % 2 else []
        boxes = [[x, y, 20, 20] for x, y in spots]
        return spots, {"label": ("clear", "spot")[number % 2], "boxes": json.dumps(boxes)}

    metrics, folder = run_all(tmp_path, write(tmp_path / "data", describe), ["clear", "spot"])
    assert metrics["noninferiority"]["metric"] == "auroc"
    assert "quadratic_weighted_kappa" not in metrics["classification"]
    assert find_localised(folder)


def test_several_classes_without_truth(tmp_path: Path) -> None:
    def describe(number: int) -> tuple[list[tuple[int, int]], Row]:
        return [[], [(4, 4)], [(36, 36)]][number % 3], {"label": ("none", "left", "right")[number % 3]}  # type: ignore[return-value]

    metrics, folder = run_all(tmp_path, write(tmp_path / "data", describe), ["none", "left", "right"])
    assert np.shape(metrics["confusion"]["softcam"]) == (3, 3)
    assert metrics["noninferiority"] is None
    assert not find_localised(folder)


def test_grades_report_their_kappa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [(2, 2), (40, 2), (2, 40), (40, 40)]

    def describe(number: int) -> tuple[list[tuple[int, int]], Row]:
        return places[: number % 4], {"label": number % 4}

    metrics, folder = run_all(tmp_path, write(tmp_path / "data", describe), ["0", "1", "2", "3"], ordinal=True)
    for model in ("classification", "black_box"):
        kappa = metrics[model]["quadratic_weighted_kappa"]
        assert -1 <= kappa["low"] <= kappa["value"] <= kappa["high"] <= 1
    table = pd.read_csv(folder / "evaluation/predictions.csv")
    from sklearn.metrics import cohen_kappa_score  # noqa: PLC0415

    assert metrics["classification"]["quadratic_weighted_kappa"]["value"] == pytest.approx(
        cohen_kappa_score(table["label"], table["predicted"], weights="quadratic")
    )
    assert read_config(folder / "run/model").task == "ordinal"
    page = (folder / "evaluation/report.html").read_text()
    assert "Quadratic kappa" in page
    assert "The grades agree with a quadratic weighted kappa" in page
    assert "Quadratic kappa" in capsys.readouterr().out
    assert "val_kappa" in pd.read_csv(folder / "run/metrics.csv")


def test_several_labels_per_image_with_masks(tmp_path: Path) -> None:
    def describe(number: int) -> tuple[list[tuple[int, int]], Row]:
        left, right = number % 2, number // 2 % 2
        spots = [(4, 22)] * left + [(40, 22)] * right
        flags = {"left": left, "right": right, "either": int(bool(spots))}
        return spots, flags | {"mask": f"masks/{number:02}.png" if spots else ""}

    classes = ["left", "right", "either"]
    metrics, folder = run_all(tmp_path, write(tmp_path / "data", describe), classes)
    assert read_config(folder / "run/model").task == "multilabel"
    for model in ("softcam", "black_box"):
        assert list(metrics["per_class"][model]) == classes
        assert set(metrics["per_class"][model]["left"]) >= {"auroc", "sensitivity", "specificity"}
        assert np.sum(metrics["confusion"][model]["left"]) == COUNT / 2
        assert set(metrics["thresholds"][model]) == set(classes)
    assert metrics["noninferiority"] is None
    assert set(metrics["consistency"]) == {"positive_share", "negative_share"}
    table = pd.read_csv(folder / "evaluation/predictions.csv", keep_default_na=False)
    assert set(table["label"]) == {"", "left;either", "right;either", "left;right;either"}
    columns = [f"prob_{name}" for name in classes]
    assert not np.allclose(table[columns].sum(axis=1), 1), "independent probabilities"
    named = table["predicted"].str.split(";").map(lambda names: [name in names for name in classes])
    thresholds = np.array([metrics["thresholds"]["softcam"][name] for name in classes])
    assert np.array_equal(np.array(named.tolist()), table[columns].to_numpy() >= thresholds)
    assert find_localised(folder)
    page = (folder / "evaluation/report.html").read_text()
    assert "Each label on its own" in page
    assert "most probable" in page
    assert "SoftCAM, either" in page
    explained = pd.read_csv(folder / "explained/predictions.csv", keep_default_na=False)
    assert (explained["status"] == "ok").all()
    assert all(set(names.split(";")) <= {*classes, ""} for names in explained["predicted"])


def test_a_multi_label_table_is_not_evaluated_by_a_model_of_exclusive_classes(tmp_path: Path) -> None:
    def describe(number: int) -> tuple[list[tuple[int, int]], Row]:
        return [], {"label": ("left", "right")[number % 2]}

    manifest = write(tmp_path / "data", describe)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(source=manifest, classes='["left", "right"]', ordinal="false"))
    assert (
        main(["train", "--config", str(recipe), "--set", "stages=[{epochs: 1}]", "--out", str(tmp_path / "run")]) == 0
    )
    table = pd.read_csv(manifest).drop(columns="label").assign(left=1, right=0)
    table.to_csv(tmp_path / "data/flags.csv", index=False)
    arguments = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "data/flags.csv")]
    assert main([*arguments, "--out", str(tmp_path / "evaluation")]) == 2
    assert not (tmp_path / "evaluation/metrics.json").exists()
