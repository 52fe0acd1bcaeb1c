"""Loaders for each stage: of images where everything is trained, of cached features where the trunk is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader

from softcam.data import ImageDataModule, Manifest
from softcam.imaging import Preprocessing
from softcam.training.cache import CachedDataset, Features, RowSampler
from softcam.training.recipe import Recipe


class StagedDataModule(ImageDataModule):
    """Loaders of `(images or cached features, targets, indices)`, chosen by the trainer's epoch.

    Args:
        manifest: Images with the splits `train` and `val`.
        preprocessing: From a decoded image to the network's input.
        recipe: Stages, seed, batch size and augmentation.
    """

    def __init__(self, manifest: Manifest, preprocessing: Preprocessing, recipe: Recipe) -> None:
        super().__init__(
            manifest,
            preprocessing,
            recipe.data.augmentation,
            batch_size=recipe.data.batch_size,
            num_workers=recipe.data.num_workers,
            seed=recipe.seed,
        )
        self._recipe = recipe
        self._features: Mapping[str, Features] = {}
        self._loaders: dict[str, DataLoader[Any]] = {}

    def use_features(self, features: Mapping[str, Features]) -> None:
        """Serve cached features in the stages that have a trunk.

        Args:
            features: By split, `train` and `val`, as `cache_features` returns them.
        """
        self._features = features

    def train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of training batches, in an order that depends on seed and epoch alone."""
        loader = self._cached("train", self._recipe.seed) if self._is_cached else self._images("train")
        # Worker processes begin to load before the trainer of a run that is taken up again names its epoch.
        loader.sampler.set_epoch(self._epoch)  # type: ignore[attr-defined]
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Return a loader of validation batches in the manifest's order."""
        return self._cached("val", None) if self._is_cached else self._images("val")

    @property
    def _epoch(self) -> int:
        # While a run is being taken up again, `current_epoch` is still the one before.
        if self.trainer is None:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        return int(progress.processed)

    @property
    def _is_cached(self) -> bool:
        return bool(self._features) and self._recipe.stage_at(self._epoch).trunk is not None

    def _images(self, split: str) -> DataLoader[Any]:
        # One loader for all epochs, so that its worker processes live on.
        if split not in self._loaders:
            self._loaders[split] = super().train_dataloader() if split == "train" else super().val_dataloader()
        return self._loaders[split]

    def _cached(self, split: str, seed: int | None) -> DataLoader[Any]:
        features, targets = self._features[split], torch.from_numpy(self.manifest.subset(split).targets)
        views = len(features) // len(targets)
        sampler = RowSampler(len(targets), views=views, batch_size=self.batch_size, seed=seed)
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(CachedDataset(features, targets), sampler=sampler, batch_size=None, generator=generator)
