"""Tables of tiny images with findings, and a recipe that takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data import Manifest, read_manifest
from softcam.training import Recipe

Create = Callable[..., Recipe]


def draw_images(root: Any) -> list[tuple[str, str, str, str]]:
    """Draw 48 images, 32x32: half of them with a bright square, whose place is known."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(48):
        pixels, mask = generator.integers(0, 90, (32, 32), dtype=np.uint8), np.zeros((32, 32), dtype=np.uint8)
        if number % 2:
            top, left = generator.integers(0, 22, 2)
            pixels[top : top + 10, left : left + 10] = mask[top : top + 10, left : left + 10] = 255
            Image.fromarray(mask).save(root / f"{number:02}-mask.png")
        Image.fromarray(pixels).save(root / f"{number:02}.png")
        found = f"{number:02}-mask.png" if number % 2 else ""
        rows.append((f"{number:02}.png", ("dark", "spot")[number % 2], ("train", "val")[number // 2 % 2], found))
    return rows


@pytest.fixture(scope="package")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("images")
    table = pd.DataFrame(draw_images(root), columns=["image", "label", "split", "mask"])
    table.to_csv(root / "manifest.csv", index=False)
    return read_manifest(root / "manifest.csv")


@pytest.fixture(scope="package")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The same images with independent labels: a square, one in the upper half, and one that no image has."""
    root = tmp_path_factory.mktemp("labels")
    table = pd.DataFrame(draw_images(root), columns=["image", "label", "split", "mask"])
    spot = (table.pop("label") == "spot").astype(int)
    table = table.assign(spot=spot, upper=spot * (np.arange(len(table)) // 4 % 2), never=0)
    table.to_csv(root / "manifest.csv", index=False)
    return read_manifest(root / "manifest.csv", classes=["spot", "upper", "never"])


@pytest.fixture(scope="package")
def create_recipe() -> Create:
    def create(manifest: Manifest, **changes: Any) -> Recipe:
        data = {"source": str(manifest.root / "manifest.csv"), "image_size": 64, "batch_size": 8}
        if manifest.task == "multilabel":
            data["classes"] = list(manifest.classes)
        return Recipe.from_dict(
            {
                "name": "tiny",
                "data": data,
                "model": {"backbone": "timm:test_efficientnet", "weights": "none"},
                "optimizer": {"lr": 0.01},
                "stages": [{"epochs": 1, "trunk": "blocks.2"}],
                **changes,
            }
        )

    return create
