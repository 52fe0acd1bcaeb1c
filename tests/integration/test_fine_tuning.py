"""A head that no evidence maps can keep: copied to every cell, the logits drift; training brings them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import default_collate

from softcam.bundle import load, load_black_box, read_config
from softcam.data import ImageDataset, Manifest, read_manifest
from softcam.errors import SoftCAMWarning
from softcam.imaging import Preprocessing
from softcam.nn import convert
from softcam.training import Recipe, train

BACKBONE = "timm:mobilenetv3_small_050"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """160 images, 16x16, of noise: half of them with a brighter square."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    rows = []
    for number in range(160):
        pixels = generator.integers(0, 160, (16, 16))
        if number % 2:
            top, left = generator.integers(0, 11, 2)
            pixels[top : top + 5, left : left + 5] += 90
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number:03}.png")
        rows.append((f"{number:03}.png", ("noise", "square")[number % 2], ("train", "train", "val")[number // 2 % 3]))
    pd.DataFrame(rows, columns=["image", "label", "split"]).to_csv(root / "manifest.csv", index=False)
    return read_manifest(root / "manifest.csv")


def create_recipe(manifest: Manifest, epochs: int, **model: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "name": "squares",
            "data": {"source": str(manifest.root / "manifest.csv"), "image_size": 64, "batch_size": 16},
            "model": {"backbone": BACKBONE, **model},
            "optimizer": {"lr": 2e-3},
            "stages": [{"epochs": epochs}],
        }
    )


def losses(model: torch.nn.Module, batch: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    with torch.no_grad():
        logits = model.eval()(batch)
    return float((logits.argmax(1) == targets).float().mean()), float(F.cross_entropy(logits, targets))


@pytest.mark.slow
def test_training_brings_back_what_a_copied_head_lost(manifest: Manifest, tmp_path: Path) -> None:
    twin = train(create_recipe(manifest, 16, kind="black_box", weights="none"), tmp_path / "twin", progress=False)
    black_box = load_black_box(twin.model_path)
    val = ImageDataset(
        manifest.subset("val"), Preprocessing.from_dict(dict(read_config(twin.model_path).preprocessing))
    )
    batch, targets = default_collate([val[index] for index in range(len(val))])[:2]
    goal = losses(black_box, batch, targets)
    assert goal[0] > 0.8
    copied = convert(black_box, images=batch, exact=False)
    assert copied.conversion.drift is not None
    assert copied.conversion.drift > 1e-3
    with pytest.warns(SoftCAMWarning, match="its head cannot"):
        run = train(create_recipe(manifest, 8, weights=str(tmp_path / "twin")), tmp_path / "run", progress=False)
    tuned = load(run.model_path)
    assert tuned.conversion.head == "pointwise"
    found = losses(tuned, batch, targets)
    assert found[0] >= goal[0] - 0.02
    assert found[1] < losses(copied, batch, targets)[1]
