"""The recipes of the paper's data sets: their numbers, and one step of training each, on data of the right layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.bundle import read_config
from softcam.data import read_manifest
from softcam.data.sources import DOWNLOADS
from softcam.training import change_recipe, read_recipe, train
from softcam.training.schedule import learning_rate, plan_segments

LABELS = {
    "kaggle-dr": ("kaggle-dr", "onset1"),
    "kaggle-dr-5": ("kaggle-dr", "grades"),
    "retinal-oct": ("retinal-oct", "drusen"),
    "retinal-oct-4": ("retinal-oct", "classes"),
    "rsna": ("rsna", "pneumonia"),
}
EPOCHS = {"kaggle-dr": 50, "kaggle-dr-5": 50, "retinal-oct": 30, "retinal-oct-4": 30, "rsna": 50}


@pytest.mark.parametrize("name", LABELS)
def test_the_numbers_are_the_papers(name: str) -> None:
    recipe = read_recipe(name)
    download, labels = LABELS[name]
    assert recipe.data.classes == DOWNLOADS[download].labels[labels]
    assert recipe.data.source == f"{name}/manifest.csv"
    optimizer = recipe.optimizer
    found = (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay)
    assert found == ("sgd", 1e-3, 0.9, True, 5e-4)
    assert (recipe.data.batch_size, recipe.epochs, recipe.penalty.active) == (12, EPOCHS[name], False)
    assert (recipe.model.backbone, recipe.model.weights, recipe.model.at) == ("torchvision:resnet50", "pretrained", ())
    assert recipe.data.image_size == (496 if "oct" in name else 512)
    assert recipe.data.augmentation.vflip is (name != "rsna")
    assert recipe.data.ordinal is (name == "kaggle-dr-5")


@pytest.mark.parametrize("name", LABELS)
def test_the_learning_rate_is_the_papers_cosine(name: str) -> None:
    recipe, steps = read_recipe(name), 7
    segments = plan_segments(recipe, steps)
    for epoch in range(EPOCHS[name]):
        expected = max(1e-3 * (1 + np.cos(np.pi * epoch / 50)) / 2, 1e-4)
        for step in (0, steps - 1):
            assert learning_rate(epoch * steps + step, segments) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(29 * steps, segments) > 1e-4


def write_data(folder: Path, classes: tuple[str, ...], *, boxes: bool) -> Path:
    """Write three images of each class in the layout of a prepared data set."""
    rows = []
    for number in range(3 * len(classes)):
        split = ("train", "val", "train")[number // len(classes)]
        pixels = np.random.default_rng(number).integers(0, 255, (70, 70, 3), dtype=np.uint8)
        image = folder / f"images/{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(image)
        row = {
            "image": f"images/{number}.png",
            "label": classes[number % len(classes)],
            "split": split,
            "patient": number,
        }
        rows.append(row | ({"boxes": "[[1, 2, 30, 40]]"} if boxes else {}))
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.mark.filterwarnings("ignore:Expected torchvision.vgg16 to keep its logits:softcam.errors.SoftCAMWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backbone"), [*((name, "torchvision:resnet50") for name in LABELS), ("rsna", "torchvision:vgg16")]
)
def test_every_recipe_builds_its_model_and_learns_a_step(name: str, backbone: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    source = write_data(tmp_path / "data", recipe.data.classes or (), boxes=name == "rsna")
    changes = [f"data.source={source}", "data.image_size=64", "data.num_workers=0", "model.weights=none"]
    strength = "penalty.l1=2e-5" if name == "rsna" else "penalty.l1=0.0"
    changed = change_recipe(recipe, [*changes, f"model.backbone={backbone}", strength, "stages=[{epochs: 1}]"])
    done = train(changed, tmp_path / "run", progress=False)
    config = read_config(done.model_path)
    assert config.classes == recipe.data.classes
    assert config.task == ("ordinal" if recipe.data.ordinal else "multiclass")
    assert config.preprocessing is not None
    assert config.preprocessing["mean"] == list(recipe.data.preprocessing["mean"])
    assert (config.penalty or {})["l1"] == (2e-5 if name == "rsna" else 0.0)
    row = pd.read_csv(tmp_path / "run/metrics.csv").iloc[0]
    assert np.isfinite(row["train_loss"])
    assert (row["train_penalty"] > 0) == (name == "rsna")
    assert ("val_kappa" in row) == recipe.data.ordinal
    assert read_manifest(source, classes=recipe.data.classes).classes == config.classes
