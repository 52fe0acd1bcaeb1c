"""Loaders: what they yield, in which order, and that workers and resuming change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from softcam.data.dataset import ImageDataset
from softcam.data.manifest import Manifest, read_manifest
from softcam.data.module import ImageDataModule
from softcam.data.transforms import Augmentation
from softcam.errors import ImageError, ManifestError
from softcam.imaging import Preprocessing

PREPROCESSING = Preprocessing(size=4, mean=(0.0,), std=(1.0,), channels=1)
AUGMENTATION = Augmentation(p=0.5, hflip=True, brightness=(0.5, 1.0))
ROWS = ("a.png,x,train", "b.png,y,train", "c.png,x,train", "d.png,x,train", "e.png,y,val", "f.png,x,test")


@pytest.fixture
def manifest(tmp_path: Path, write_table: Callable[..., Path]) -> Manifest:
    path = write_table("image,label,split", *ROWS)
    for seed, letter in enumerate("abcdef"):
        noise = np.random.default_rng(seed).integers(1, 256, (4, 4), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{letter}.png")
    return read_manifest(path)


def _module(manifest: Manifest, **arguments: Any) -> ImageDataModule:
    return ImageDataModule(manifest, PREPROCESSING, **{"augmentation": AUGMENTATION, "batch_size": 3, **arguments})


def _epochs(module: ImageDataModule, count: int = 2) -> list[list[Tensor]]:
    loader = module.train_dataloader()
    return [[part for batch in loader for part in batch] for _ in range(count)]


def _equal(first: list[list[Tensor]], second: list[list[Tensor]]) -> bool:
    return all(
        torch.equal(left, right)
        for one, other in zip(first, second, strict=True)
        for left, right in zip(one, other, strict=True)
    )


def test_each_loader_has_its_split(manifest: Manifest) -> None:
    module = _module(manifest)
    images, targets, indices = next(iter(module.val_dataloader()))
    assert (tuple(images.shape), targets.tolist(), indices.tolist()) == ((1, 1, 4, 4), [1], [0])
    assert next(iter(module.test_dataloader()))[1].tolist() == [0]
    sizes = [batch[0].shape[0] for batch in module.train_dataloader()]
    assert sizes == [3, 1]


def test_only_training_images_are_changed_and_shuffled(manifest: Manifest) -> None:
    everything = Manifest(manifest.table.assign(split="val"), manifest.root, manifest.classes, manifest.task)
    (batch,) = _module(everything, batch_size=6).val_dataloader()
    plain = ImageDataset(everything, PREPROCESSING)
    assert batch[2].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(batch[0], torch.stack([plain[index][0] for index in range(6)]))


def test_seed_and_augmentation_decide_the_epochs(manifest: Manifest) -> None:
    first = _epochs(_module(manifest))
    assert _equal(_epochs(_module(manifest)), first)
    assert not _equal(first[:1], first[1:])
    assert not _equal(_epochs(_module(manifest, seed=1)), first)
    assert not _equal(_epochs(_module(manifest, augmentation=None)), first)


def test_workers_change_nothing(manifest: Manifest) -> None:
    module = _module(manifest, num_workers=2)
    assert module.train_dataloader().persistent_workers
    assert _equal(_epochs(module), _epochs(_module(manifest)))


def test_a_worker_uses_one_thread(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def count_threads(self: ImageDataset, index: int) -> Tensor:
        return torch.full((1, 4, 4), float(torch.get_num_threads()))

    monkeypatch.setattr(ImageDataset, "_load", count_threads)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here, there = (next(iter(_module(manifest, num_workers=workers).test_dataloader()))[0] for workers in (0, 1))
    finally:
        torch.set_num_threads(before)
    assert (here.max().item(), there.max().item()) == (2.0, 1.0)


def test_loading_leaves_the_generators_of_torch_alone(manifest: Manifest) -> None:
    before = torch.get_rng_state()
    _epochs(_module(manifest))
    list(_module(manifest).val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_is_pinned_only_for_a_gpu(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert _module(manifest).val_dataloader().pin_memory is there


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_named_from_wherever_it_is_read(manifest: Manifest, workers: int) -> None:
    (manifest.root / "f.png").write_bytes(b"")
    loader = _module(manifest, num_workers=workers).test_dataloader()
    with pytest.raises(ImageError, match=r"row 7, file 'f\.png'"):
        list(loader)
    if workers:
        # The exception holds the iterator, and a worker that is only collected later is waited for.
        loader._iterator._shutdown_workers()


class _Recorder(LightningModule):
    """Remembers what it was shown, and learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        self.seen.append(batch[0].clone())
        return self.weight * 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def _fit(manifest: Manifest, folder: Path, epochs: int, checkpoint: Path | None = None) -> tuple[_Recorder, Trainer]:
    recorder = _Recorder()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    loader = _module(manifest).train_dataloader()
    trainer.fit(recorder, train_dataloaders=loader, ckpt_path=checkpoint)
    return recorder, trainer


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_training_sees_what_an_unbroken_one_sees(manifest: Manifest, tmp_path: Path) -> None:
    unbroken, _ = _fit(manifest, tmp_path, 3)
    broken, trainer = _fit(manifest, tmp_path, 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = _fit(manifest, tmp_path, 3, tmp_path / "last.ckpt")
    assert len(unbroken.seen) == 6
    assert _equal([broken.seen + resumed.seen], [unbroken.seen])
    assert not _equal([unbroken.seen[:2]], [unbroken.seen[4:]])


def test_class_weights_balance(manifest: Manifest) -> None:
    weights = _module(manifest).class_weights()
    torch.testing.assert_close(weights, torch.tensor([4 / (2 * 3), 4 / (2 * 1)]))


def test_effective_numbers_lift_rare_classes_less(manifest: Manifest, write_table: Callable[..., Path]) -> None:
    seen = [(1 - 0.999**images) / 0.001 for images in (3, 1)]
    weights = _module(manifest).class_weights(effective=True)
    torch.testing.assert_close(weights, torch.tensor([sum(seen) / (2 * one) for one in seen]))
    balanced = _module(manifest).class_weights()
    assert weights[1] / weights[0] < balanced[1] / balanced[0]
    path = write_table("image,u,v,split", "a.png,1,0,train", "b.png,1,1,train", "c.png,0,0,train", "d.png,0,1,test")
    several = _module(read_manifest(path, classes=("u", "v"))).class_weights(effective=True)
    assert 0.5 < several[0] < 1 < several[1] < 2


def test_multilabel_weights_are_negatives_per_positive(write_table: Callable[..., Path]) -> None:
    path = write_table("image,u,v,split", "a.png,1,0,train", "b.png,1,1,train", "c.png,0,0,train", "d.png,0,1,test")
    weights = _module(read_manifest(path, classes=("u", "v"))).class_weights()
    torch.testing.assert_close(weights, torch.tensor([0.5, 2.0]))


def test_a_class_without_training_images_has_no_weight(manifest: Manifest, write_table: Callable[..., Path]) -> None:
    named = read_manifest(manifest.root / "manifest.csv", classes=("x", "y", "z"))
    with pytest.raises(ManifestError, match=r"not so for \['z'\]"):
        _module(named).class_weights()
    path = write_table("image,u,v,split", "a.png,1,0,train", "b.png,1,1,train")
    with pytest.raises(ManifestError, match=r"not so for \['u'\]"):
        _module(read_manifest(path, classes=("u", "v"))).class_weights()


@pytest.mark.parametrize(("name", "value", "least"), [("batch_size", 0, 1), ("num_workers", -1, 0)])
def test_numbers_out_of_range_are_refused(manifest: Manifest, name: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}` to be at least {least}, but got {value}"):
        _module(manifest, **{name: value})


def test_a_split_that_is_not_there_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="split 'val'"):
        _module(manifest.subset("train")).val_dataloader()
