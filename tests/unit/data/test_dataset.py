"""Items and their order: a function of seed, epoch and position, whoever loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from softcam.data.dataset import EpochSampler, ImageDataset
from softcam.data.manifest import Manifest, read_manifest
from softcam.data.transforms import Augmentation
from softcam.errors import ImageError
from softcam.imaging import Preprocessing

PREPROCESSING = Preprocessing(size=8, mean=(0.5,), std=(0.25,), channels=1)
AUGMENTATION = Augmentation(p=1.0, rotation=180.0, brightness=(0.5, 1.5))


@pytest.fixture
def manifest(tmp_path: Path, write_table: Callable[..., Path]) -> Manifest:
    path = write_table("image,label", "a.png,x", "b.png,y", "c.png,x", "d.png,y")
    for seed, letter in enumerate("abcd"):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{letter}.png")
    return read_manifest(path)


def _items(dataset: ImageDataset) -> Tensor:
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


def test_an_item_is_the_normalised_image_its_target_and_its_position(manifest: Manifest, tmp_path: Path) -> None:
    image, target, index = ImageDataset(manifest, PREPROCESSING)[1]
    pixels = np.asarray(Image.open(tmp_path / "b.png"), dtype=np.float32) / 255
    torch.testing.assert_close(image, torch.from_numpy((pixels - 0.5) / 0.25)[None])
    assert (target.item(), target.dtype, index) == (1, torch.int64, 1)


def test_a_multilabel_target_is_a_row_of_flags(write_table: Callable[..., Path]) -> None:
    manifest = read_manifest(write_table("image,u,v", "a.png,1,0", "b.png,1,1"), classes=("u", "v"))
    assert ImageDataset(manifest, PREPROCESSING)[0][1].tolist() == [1.0, 0.0]


def test_a_change_is_drawn_from_seed_epoch_and_position(manifest: Manifest) -> None:
    dataset = ImageDataset(manifest, PREPROCESSING, AUGMENTATION, seed=1)
    first = _items(dataset)
    assert torch.equal(_items(dataset), first)
    assert torch.equal(_items(ImageDataset(manifest, PREPROCESSING, AUGMENTATION, seed=1)), first)
    assert not torch.equal(_items(ImageDataset(manifest, PREPROCESSING, AUGMENTATION, seed=2)), first)
    assert not torch.equal(_items(ImageDataset(manifest, PREPROCESSING)), first)
    dataset.set_epoch(1)
    assert not torch.equal(_items(dataset), first)
    dataset.set_epoch(0)
    assert torch.equal(_items(dataset), first)


def test_two_positions_of_one_image_change_differently(manifest: Manifest) -> None:
    # Built by hand: a manifest that was read never holds an image twice.
    table = manifest.table.assign(image="a.png")
    first, second, *_ = _items(
        ImageDataset(Manifest(table, manifest.root, manifest.classes, "multiclass"), PREPROCESSING, AUGMENTATION)
    )
    assert not torch.equal(first, second)


def test_the_generators_of_torch_stay_as_they_were(manifest: Manifest) -> None:
    dataset = ImageDataset(manifest, PREPROCESSING, AUGMENTATION)
    before = torch.get_rng_state()
    _items(dataset)
    list(EpochSampler(dataset))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_change_comes_before_normalising(manifest: Manifest) -> None:
    dark = ImageDataset(manifest, PREPROCESSING, Augmentation(p=1.0, brightness=(0.0, 0.0)))
    assert torch.equal(dark[0][0], torch.full((1, 8, 8), -2.0))


def test_a_bad_file_is_named_with_its_row_and_reason(manifest: Manifest) -> None:
    (manifest.root / "c.png").write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"^row 4, file 'c\.png': .+") as caught:
        ImageDataset(manifest, PREPROCESSING)[2]
    assert str(manifest.root) not in str(caught.value)
    without_rows = Manifest(manifest.table, manifest.root, manifest.classes, manifest.task)
    with pytest.raises(ImageError, match=r"^file 'c\.png': .+"):
        ImageDataset(without_rows, PREPROCESSING)[2]


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(manifest: Manifest) -> None:
    dataset = ImageDataset(manifest, PREPROCESSING)
    sampler = EpochSampler(dataset, seed=5)
    epochs = [list(sampler) for _ in range(6)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [list(EpochSampler(dataset, seed=seed)) for seed in range(6)] != [list(EpochSampler(dataset, seed=0))] * 6
    resumed = EpochSampler(dataset, seed=5)
    resumed.set_epoch(4)
    assert [list(resumed), list(resumed)] == epochs[4:]
    assert len(sampler) == 4


def test_an_epoch_moves_the_changes_on(manifest: Manifest) -> None:
    dataset = ImageDataset(manifest, PREPROCESSING, AUGMENTATION)
    sampler = EpochSampler(dataset)
    iter(sampler)
    first = _items(dataset)
    iter(sampler)
    assert not torch.equal(_items(dataset), first)
