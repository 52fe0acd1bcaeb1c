"""A model whose evidence sits at two earlier places, through every command that a user would give it to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from softcam.cli import main
from softcam.data.synthesis import LesionSettings, synthesize_lesions

RECIPE = """\
data: {{source: {source}, classes: [healthy, lesions], image_size: 64, batch_size: 8}}
model: {{backbone: "timm:test_efficientnet", weights: none, at: [8, 16]}}
penalty: {{l1: 1.0e-4, scales: [1.0, 4.0]}}
optimizer: {{lr: 0.003}}
stages:
  - {{epochs: 2}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of images, of a trained model and of its black-box twin."""
    root = tmp_path_factory.mktemp("places")
    synthesize_lesions(root / "data", LesionSettings(images=40, size=64))
    (root / "recipe.yaml").write_text(RECIPE.format(source=root / "data" / "manifest.csv"))
    assert main(["train", "--config", str(root / "recipe.yaml"), "--out", str(root / "run")]) == 0
    assert main(["train", "--config", str(root / "recipe.yaml"), "--out", str(root / "twin"), "--black-box"]) == 0
    return root


def test_evaluation_and_report_tell_scales_locality_and_findings(folder: Path) -> None:
    out = folder / "evaluation"
    command = ["evaluate", str(folder / "run"), "--black-box", str(folder / "twin"), "--out", str(out)]
    assert main([*command, "--data", str(folder / "data" / "manifest.csv"), "--explained", "8"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    shares = [scale["value"] for scale in metrics["locality"]["scales"]]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1)
    assert metrics["identity"]["max_relative_error"] <= 1e-5
    benchmark = pd.read_csv(out / "benchmark.csv")
    assert {"pointing_game", "pixel_auroc"} <= set(benchmark["metric"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Share of the decision that each class evidence layer carries" in page
    assert "Is a cell about its pixels?" in page


def test_explanations_have_the_finest_grid_and_the_exact_sum(folder: Path) -> None:
    out = folder / "explained"
    images = sorted((folder / "data" / "images").glob("*.png"))[:3]
    assert main(["explain", str(folder / "run"), *map(str, images), "--out", str(out)]) == 0
    table = pd.read_csv(out / "predictions.csv")
    assert (table["status"] == "ok").all()
    assert table["sum_error"].max() <= 1e-5
    with np.load(out / "evidence" / f"{images[0].name}.npz") as stored:
        assert stored["maps"].shape == (2, 8, 8)
        assert np.allclose(stored["maps"].mean((1, 2)), stored["logits"], rtol=1e-4, atol=1e-5)


def test_the_export_agrees_with_torch(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["export", str(folder / "run"), "--out", str(folder / "model.onnx")]) == 0
    assert (folder / "model.onnx").is_file()
