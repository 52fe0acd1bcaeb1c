from __future__ import annotations

import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from softcam.data import Augmentation, ImageDataset, Manifest
from softcam.errors import RunError
from softcam.imaging import Preprocessing
from softcam.training import cache
from softcam.training.batches import Part, Share
from softcam.training.cache import CachedDataset, CachePlan, RowSampler, cache_features, cache_key


class Counting(nn.Module):
    """Counts the images it sees."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(factor))
        self.trunk = nn.Identity()
        self.norm = nn.BatchNorm2d(3)
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.norm(self.trunk(images[:, :, ::2, ::2] * self.weight))


@pytest.fixture
def dataset(manifest: Manifest) -> ImageDataset:
    preprocessing = Preprocessing(size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    return ImageDataset(manifest.subset("train"), preprocessing, Augmentation(p=0.5, hflip=True), seed=1)


def plan(folder: Path, **changes: object) -> CachePlan:
    return CachePlan(**{"path": folder / "train.npy", "name": "trunk", "views": 2, "batch_size": 5, **changes})


def test_rows_are_views_of_images_in_their_order(dataset: ImageDataset, tmp_path: Path) -> None:
    features = cache_features(Counting(), dataset, plan(tmp_path))
    assert features.shape == (48, 3, 8, 8)
    assert features.dtype == np.float16
    for view in (0, 1):
        dataset.set_epoch(view)
        for index in (0, 7, 23):
            expected = dataset[index][0][:, ::2, ::2].half()
            assert torch.equal(torch.from_numpy(features[view * 24 + index].copy()), expected)
    assert not np.array_equal(features[:24], features[24:])


def test_a_whole_file_is_read_and_not_made_again(dataset: ImageDataset, tmp_path: Path) -> None:
    first = cache_features(Counting(), dataset, plan(tmp_path))
    again = Counting()
    assert np.array_equal(cache_features(again, dataset, plan(tmp_path)), first)
    assert again.images == 0


@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_an_interrupted_computation_goes_on_where_it_stopped(
    dataset: ImageDataset, tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "RECORD_EVERY", 1)
    whole = cache_features(Counting(), dataset, plan(tmp_path / "whole"))
    calls: list[int] = []

    def interrupt(done: int, total: int) -> None:
        assert total == 48
        calls.append(done)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_features(Counting(), dataset, plan(tmp_path), report=interrupt)
    assert not (tmp_path / "train.npy").exists()
    model = Counting()
    assert np.array_equal(cache_features(model, dataset, plan(tmp_path)), whole)
    assert model.images == 48 - calls[-1]
    assert sorted(item.name for item in tmp_path.glob("*.*")) == ["train.npy"]


def test_the_model_is_run_in_eval_mode_and_left_as_it_was(dataset: ImageDataset, tmp_path: Path) -> None:
    model = Counting().train()
    cache_features(model, dataset, plan(tmp_path))
    assert model.training
    assert model.norm.training
    assert int(model.norm.num_batches_tracked) == 0
    assert not model.trunk._forward_hooks


def test_global_random_numbers_are_left_alone(dataset: ImageDataset, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    cache_features(Counting(), dataset, plan(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)


def test_values_that_do_not_fit_float16_are_refused(dataset: ImageDataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="output of 'trunk' to be finite and below 65504"):
        cache_features(Counting(factor=1e6), dataset, plan(tmp_path))
    assert not (tmp_path / "train.npy").exists()


def test_a_full_disk_is_said_before_the_work(dataset: ImageDataset, tmp_path: Path) -> None:
    usage = mock.Mock(free=48 * 3 * 8 * 8 * 2 - 1)
    with (
        mock.patch.object(cache.shutil, "disk_usage", return_value=usage),
        pytest.raises(RunError, match=r"Expected 0\.0 GB of free disk space"),
    ):
        cache_features(Counting(), dataset, plan(tmp_path))


@pytest.mark.parametrize("part", [{"a": 2}, {"b": [1, 2]}, {"c": 1}])
def test_each_part_changes_the_key(part: dict[str, object]) -> None:
    assert cache_key(**{"a": 1, "b": [1], **part}) != cache_key(a=1, b=[1])


def test_an_epoch_has_each_image_once_with_its_views_in_turn() -> None:
    sampler = RowSampler(5, views=2, seed=0)
    assert len(sampler) == 5
    seen = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        rows = list(sampler)
        assert sorted(row % 5 for row in rows) == list(range(5))
        assert sorted(row % 5 for row in rows if row >= 5) == [index for index in range(5) if (index + epoch) % 2]
        seen += rows
    assert sorted(seen) == list(range(10))


def test_the_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int | None, epoch: int) -> list[int]:
        sampler = RowSampler(40, views=1, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert order(None, 3) == list(range(40))


def test_a_batch_holds_the_targets_of_its_images() -> None:
    features = np.arange(6, dtype=np.float16).reshape(6, 1)
    dataset = CachedDataset(features, torch.tensor([7, 8, 9]))
    values, targets, indices, share = dataset[Part([5, 0, 1], Share(4, 0.75))]
    assert len(dataset) == 6
    assert values.dtype == torch.float32
    assert values.flatten().tolist() == [5.0, 0.0, 1.0]
    assert targets.tolist() == [9, 7, 8]
    assert indices.tolist() == [2, 0, 1]
    assert share == Share(4, 0.75)


def test_workers_read_the_file_instead_of_a_copy(dataset: ImageDataset, tmp_path: Path) -> None:
    features = cache_features(Counting(), dataset, plan(tmp_path))
    cached = CachedDataset(features, torch.from_numpy(dataset.manifest.targets))
    sent = pickle.dumps(cached)
    assert len(sent) < features.nbytes / 10
    copied = pickle.loads(sent)  # noqa: S301 - made above
    assert torch.equal(copied[Part([3], Share(1))][0], cached[Part([3], Share(1))][0])
    parts = [Part([row, 47 - row], Share(2)) for row in range(24)]
    loader = DataLoader(cached, batch_size=None, sampler=parts, num_workers=2)
    for part, (values, *_) in zip(parts, loader, strict=True):
        assert np.array_equal(values.numpy(), features[part.rows].astype(np.float32))
