from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from softcam.data import Manifest
from softcam.imaging import Preprocessing
from softcam.training import Recipe
from softcam.training.data import StagedDataModule

PREPROCESSING = Preprocessing(size=16)


def module(manifest: Manifest, values: dict[str, Any], *, epoch: int, **changes: Any) -> StagedDataModule:
    stages = [{"epochs": 1, "trunk": "any", "views": 2}, {"epochs": 1}]
    data = StagedDataModule(manifest, PREPROCESSING, Recipe.from_dict({**values, "stages": stages, **changes}))
    progress = SimpleNamespace(current=SimpleNamespace(processed=epoch))
    data.trainer = SimpleNamespace(fit_loop=SimpleNamespace(epoch_progress=progress))
    features = {"train": np.zeros((48, 2, 3, 3), np.float16), "val": np.ones((8, 2, 3, 3), np.float16)}
    data.use_features(features)
    return data


def test_a_stage_with_a_trunk_gets_features(manifest: Manifest, values: dict[str, Any]) -> None:
    data = module(manifest, values, epoch=0)
    batches = list(data.train_dataloader())
    assert [batch[0].shape for batch in batches] == [(8, 2, 3, 3)] * 3
    targets = torch.from_numpy(manifest.subset("train").targets)
    assert all(torch.equal(target, targets[index]) for _, target, index, _ in batches)
    (validation,) = data.val_dataloader()
    assert validation[0].unique().tolist() == [1.0]
    assert validation[2].tolist() == list(range(8))


def test_a_stage_without_one_gets_images(manifest: Manifest, values: dict[str, Any]) -> None:
    data = module(manifest, values, epoch=1)
    assert next(iter(data.train_dataloader()))[0].shape == (8, 3, 16, 16)
    assert next(iter(data.val_dataloader()))[0].shape == (8, 3, 16, 16)
    assert data.train_dataloader() is data.train_dataloader()


def test_the_seed_decides_the_order(manifest: Manifest, values: dict[str, Any]) -> None:
    def order(seed: int) -> list[int]:
        return [int(i) for batch in module(manifest, values, epoch=0, seed=seed).train_dataloader() for i in batch[2]]

    assert order(0) == order(0) != order(1)
