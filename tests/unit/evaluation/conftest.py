"""A small data set, a SoftCAM bundle and a twin that are made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.data import Manifest, read_manifest, write_manifest
from softcam.evaluation import EvaluationResult, EvaluationSettings, evaluate
from softcam.evaluation.models import Contestants, load_contestants
from softcam.evaluation.predictions import Predictions, predict_images
from softcam.imaging import Preprocessing
from softcam.nn import convert

CLASSES = ("intact", "defect")
SIZE = 64


@dataclass(frozen=True)
class World:
    """Where everything is."""

    manifest: Manifest
    softcam: Path
    black_box: Path
    sparse: Path
    folder: Path
    classes: tuple[str, ...] = CLASSES

    def settings(self, **changes: Any) -> EvaluationSettings:
        """Settings that take a second; `changes` replace some."""
        few = {"batch_size": 5, "resamples": 200, "explained": 6, "explained_slowly": 2, "right": 2, "wrong": 2}
        quick = {
            "points": (0, 4, 8),
            "fills": ("mean", "blur"),
            "located": 4,
            "windows": (0.25, 0.5),
            "methods": ("evidence", "evidence_margin", "grad_cam", "random"),
        }
        values: dict[str, Any] = {**few, **quick, "gallery_methods": ("grad_cam",), **changes}
        return EvaluationSettings(**values)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("evaluation")
    manifest = _write_images(folder / "data")
    torch.manual_seed(0)
    black_box = create_black_box("timm:test_resnet", num_classes=2).eval()
    record = Preprocessing(size=SIZE).to_dict()
    save(black_box, folder / "black_box", classes=CLASSES, preprocessing=record, thresholds={"defect": 0.45})
    model = convert(black_box)
    with torch.no_grad():
        model.head.classifier.weight.add_(0.2 * torch.randn_like(model.head.classifier.weight))
    save(model, folder / "softcam", classes=CLASSES, preprocessing=record, thresholds={"defect": 0.4})
    with torch.no_grad():
        model.head.classifier.weight.mul_(-0.5)
    save(model, folder / "sparse", classes=CLASSES, preprocessing=record, thresholds={"defect": 0.3})
    return World(manifest, folder / "softcam", folder / "black_box", folder / "sparse", folder)


@pytest.fixture(scope="session")
def models(world: World) -> Contestants:
    return load_contestants(world.softcam, world.black_box, world.manifest, device="cpu")


@pytest.fixture(scope="session")
def predictions(world: World, models: Contestants) -> Predictions:
    return predict_images(models, world.manifest.subset("test"), batch_size=8, tolerance=1e-5)


@pytest.fixture(scope="session")
def result(world: World) -> EvaluationResult:
    return evaluate(world.softcam, world.manifest, black_box_path=world.black_box, settings=world.settings())


def _write_images(folder: Path) -> Manifest:
    generator = np.random.default_rng(0)
    rows = []
    for index in range(18):
        name = f"{index:02}.png"
        folder.mkdir(exist_ok=True)
        pixels = generator.integers(0, 255, size=(70, 80), dtype=np.uint8)
        pixels[20:40, 20:40] = 250 if index % 3 == 0 else pixels[20:40, 20:40]
        Image.fromarray(pixels).save(folder / name)
        split = "train" if index >= 16 else "test"
        rows.append((name, CLASSES[index % 3 == 0], split, f"p{index // 2}"))
    # A file that is no image, in the middle of the test split.
    (folder / "07.png").write_bytes(b"not an image")
    write_manifest(pd.DataFrame(rows, columns=["image", "label", "split", "patient"]), folder / "manifest.csv")
    return read_manifest(folder / "manifest.csv", classes=CLASSES)
