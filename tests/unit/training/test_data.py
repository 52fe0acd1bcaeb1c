from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from softcam.data import Manifest
from softcam.errors import RecipeError
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


def thin_out(manifest: Manifest) -> Manifest:
    """Return the table with a quarter of the training images of the second class."""
    rare = manifest.table.index[(manifest.table["label"] == "spot") & (manifest.table["split"] == "train")]
    return manifest.take(np.array([row for row in range(len(manifest)) if row not in set(rare[3:])]))


@pytest.mark.parametrize("epoch", [0, 1])
def test_balanced_sampling_draws_each_class_as_often(manifest: Manifest, values: dict[str, Any], epoch: int) -> None:
    rare = thin_out(manifest)
    values["data"] |= {"sampling": "balanced", "batch_size": 15}

    def draw(seed: int) -> torch.Tensor:
        loader = module(rare, values, epoch=epoch, seed=seed).train_dataloader()
        return torch.cat([batch[1] for batch in loader])

    drawn = [draw(seed) for seed in range(40)]
    assert {len(targets) for targets in drawn} == {15}
    assert torch.cat(drawn).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert torch.equal(drawn[0], draw(0))
    uniform = module(rare, {**values, "data": {**values["data"], "sampling": "uniform"}}, epoch=epoch)
    assert sorted(int(row) for batch in uniform.train_dataloader() for row in batch[2]) == list(range(15))
    assert len(next(iter(uniform.val_dataloader()))[1]) == 8


def test_balanced_sampling_of_independent_labels_is_refused(manifest: Manifest, values: dict[str, Any]) -> None:
    table = manifest.table.assign(dark=0, spot=1).drop(columns="label")
    several = Manifest(table, manifest.root, manifest.classes, "multilabel")
    values["data"] |= {"sampling": "balanced"}
    with pytest.raises(RecipeError, match=r"`data\.sampling` to be uniform, since an image of several labels"):
        module(several, values, epoch=0)
