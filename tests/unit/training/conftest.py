"""A table of tiny images that a tiny network can learn, and a recipe that takes a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data import Manifest, read_manifest
from softcam.training import Recipe

SPLITS = ("train", "train", "train", "val")


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """32 images, 16x16: half of them with a bright spot."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    rows = []
    for number in range(32):
        pixels = generator.integers(0, 90, (16, 16), dtype=np.uint8)
        if number % 2:
            top, left = generator.integers(0, 9, 2)
            pixels[top : top + 7, left : left + 7] = 255
        Image.fromarray(pixels).save(root / f"{number:02}.png")
        rows.append((f"{number:02}.png", ("dark", "spot")[number % 2], SPLITS[number // 2 % 4]))
    pd.DataFrame(rows, columns=["image", "label", "split"]).to_csv(root / "manifest.csv", index=False)
    return read_manifest(root / "manifest.csv")


@pytest.fixture
def values(manifest: Manifest) -> dict[str, Any]:
    """A recipe as YAML would give it."""
    return {
        "name": "tiny",
        "data": {"source": str(manifest.root / "manifest.csv"), "image_size": 64, "batch_size": 8},
        "model": {"backbone": "timm:test_efficientnet", "weights": "none"},
        "optimizer": {"lr": 0.01},
        "stages": [{"epochs": 2}],
    }


@pytest.fixture
def recipe(values: dict[str, Any]) -> Recipe:
    return Recipe.from_dict(values)
