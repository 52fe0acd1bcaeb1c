"""Two processes train like one, and go on with each other's runs."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from softcam.bundle import load
from softcam.errors import RunError
from softcam.training import Hardware, Learner, Recipe, train
from softcam.training.hardware import count_cores

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(count_cores() < 2, reason="two processes need two cores"),
]
TOLERANCE = 1e-5
"""Of losses, relative: sums over a batch are taken in another order, and every step builds on the one before."""
LOSSES = ("train_loss", "train_penalty", "val_loss")
COUNTS = ("epoch", "stage", "lr", "val_accuracy", "val_auroc", "val_kappa")
GRADES = ("none", "mild", "severe")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with cached and with trained trunk, and 28 images: neither split nor batch is even."""
    root = tmp_path_factory.mktemp("grades")
    generator = np.random.default_rng(0)
    rows = ["image,label,split"]
    for number in range(28):
        grade = (0, 0, 1, 0, 2)[number % 5]
        pixels = generator.integers(0, 90, (16, 16), dtype=np.uint8)
        pixels[: 5 * grade] = 255
        Image.fromarray(pixels).save(root / f"{number:02}.png")
        rows.append(f"{number:02}.png,{GRADES[grade]},{'val' if number % 4 == 0 else 'train'}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    augmentation = {"p": 0.5, "hflip": True, "rotation": 20}
    recipe = {
        "name": "grades",
        "data": {
            "source": str(root / "manifest.csv"),
            "classes": list(GRADES),
            "ordinal": True,
            "image_size": 64,
            "batch_size": 10,
            "augmentation": augmentation,
        },
        "model": {"backbone": "timm:test_efficientnet", "weights": "none"},
        "penalty": {"l1": 1e-3, "l2": 1e-2},
        "loss": {"class_weights": "balanced", "label_smoothing": 0.1},
        "optimizer": {"name": "sgd", "lr": 0.05, "gradient_clip": 1.0},
        "early_stopping": {"monitor": "val_loss", "patience": 4},
        "stages": [
            {"epochs": 2, "trunk": "blocks.1", "views": 2, "freeze_norms": True},
            {"epochs": 2, "freeze_norms": True},
        ],
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    return Recipe.from_dict(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def whole(folder: Path, recipe: Recipe) -> Path:
    """The run of one process."""
    return train(recipe, folder / "whole", progress=False).path


def start(*command: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, check=False)


def read_rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(encoding="utf-8") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def assert_alike(ours: Path, theirs: Path) -> None:
    for mine, other in zip(read_rows(ours), read_rows(theirs), strict=True):
        for name in LOSSES:
            assert mine[name] == pytest.approx(other[name], rel=TOLERANCE), name
        for name in COUNTS:
            assert mine[name] == pytest.approx(other[name], abs=1e-6), name
    first, second = (load(path / "model").state_dict() for path in (ours, theirs))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-3, atol=1e-5)


def assert_tidy(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {"cache", "checkpoints", "metrics.csv", "model", "recipe.yaml", "run.json", "tensorboard"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert {path.suffix for path in (run / "cache").iterdir()} == {".npy"}
    assert not list(run.rglob("*.partial*"))


def test_one_process_goes_on_where_one_of_two_died(folder: Path, recipe: Recipe, whole: Path) -> None:
    out = folder / "died"
    arguments = ("train", "--config", folder / "recipe.yaml", "--out", out, "--devices", 2)
    died = start(Path(__file__).with_name("dying_process.py"), *arguments)
    assert died.returncode == 2, died.stderr
    assert died.stdout == ""
    assert "softcam: Expected all processes to go through, but process 1 was ended by SIGKILL." in died.stderr
    assert died.stderr.strip().endswith("The same command continues at the last whole epoch.")
    assert len(read_rows(out)) == 2
    assert not (out / "run.json").exists()
    assert train(recipe, out, progress=False).path == out
    assert_alike(out, whole)
    assert_tidy(out)


def test_two_processes_of_torchrun_go_on_where_one_was_interrupted(
    folder: Path, recipe: Recipe, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original = folder / "interrupted", Learner.training_step

    def interrupt(self: Learner, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Learner, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, progress=False)
    assert len(read_rows(out)) == 1
    arguments = ("train", "--config", folder / "recipe.yaml", "--out", out, "--num-workers", 1, "--json")
    done = start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "softcam", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["best_epoch"] >= 1
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["processes"] == 2
    assert_alike(out, whole)
    assert_tidy(out)


@pytest.mark.parametrize("parts", [2, 5])
def test_micro_batches_change_nothing(folder: Path, recipe: Recipe, whole: Path, parts: int) -> None:
    hardware = Hardware(accumulate_grad_batches=parts)
    assert_alike(train(recipe, folder / str(parts), progress=False, hardware=hardware).path, whole)


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        (Hardware(accumulate_grad_batches=3), r"multiple of 1 processes x 3 micro-batches, but got 10\. Use 9 or 12"),
        (Hardware(2, accumulate_grad_batches=2), r"2 processes x 2 micro-batches, but got 10\. Use 8 or 12"),
        (Hardware(devices=1000, accelerator="cpu"), "devices, one for each of the CPU cores here, but got 1000"),
        (Hardware(nodes=2), "to start the processes of 2 nodes"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_the_folder_is_claimed(
    folder: Path, recipe: Recipe, hardware: Hardware, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        train(recipe, folder / "refused", hardware=hardware)
    assert not (folder / "refused").exists()
