"""Loaders for each stage: of images where everything is trained, of cached features where the trunk is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from softcam.data import ImageDataModule, Manifest
from softcam.data.dataset import EpochSampler, ImageDataset
from softcam.errors import RecipeError
from softcam.imaging import Preprocessing
from softcam.training.batches import Batch, ImageBatches, Order, Split, StepSampler
from softcam.training.cache import CachedDataset, Features, RowSampler
from softcam.training.recipe import Recipe


class StagedDataModule(ImageDataModule):
    """Loaders of a process's batches, of images or of cached features by the trainer's epoch.

    Args:
        manifest: Images with the splits `train` and `val`.
        preprocessing: From a decoded image to the network's input.
        recipe: Stages, seed, batch size and augmentation.
        split: How the recipe's batch is split between processes and micro-batches; by default it stays whole.

    Raises:
        RecipeError: If balanced sampling is asked for and the classes are independent.
    """

    def __init__(
        self, manifest: Manifest, preprocessing: Preprocessing, recipe: Recipe, *, split: Split | None = None
    ) -> None:
        super().__init__(
            manifest,
            preprocessing,
            recipe.data.augmentation,
            batch_size=recipe.data.batch_size,
            num_workers=recipe.data.num_workers,
            seed=recipe.seed,
        )
        if recipe.data.sampling == "balanced" and manifest.task == "multilabel":
            raise RecipeError(
                "Expected `data.sampling` to be uniform, since an image of several labels belongs to no single class. "
                "Use `loss.class_weights` or `loss.focus`."
            )
        self._recipe = recipe
        self._split = split or Split()
        self._features: Mapping[str, Features] = {}
        self._loaders: dict[str, DataLoader[Any]] = {}

    def use_features(self, features: Mapping[str, Features]) -> None:
        """Serve cached features in the stages that have a trunk.

        Args:
            features: By split, `train` and `val`, as `cache_features` returns them.
        """
        self._features = features

    @cached_property
    def balance(self) -> Tensor | None:
        """The weight of each class in the loss, shape (K,), where the recipe asks for one."""
        kind = self._recipe.loss.class_weights
        return None if kind == "none" else self.class_weights(effective=kind == "effective")

    @cached_property
    def draws(self) -> Tensor | None:
        """How often each training image is drawn, shape (N,), float64; None where each is taken once."""
        if self._recipe.data.sampling == "uniform":
            return None
        return self.class_weights().double()[torch.from_numpy(self.manifest.subset("train").targets)]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of training batches, in an order that depends on seed and epoch alone."""
        loader = self._cached("train", self._recipe.seed, self.draws) if self._is_cached else self._images("train")
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
            is_train = split == "train"
            images = ImageDataset(
                self.manifest.subset(split), self.preprocessing, self.augmentation if is_train else None, seed=self.seed
            )
            order = EpochSampler(images, seed=self.seed, weights=self.draws) if is_train else SequentialSampler(images)
            steps = self._steps(order, self._weigh(views=1)) if is_train else self._checks(order)
            self._loaders[split] = self._load_parts(ImageBatches(images), steps, num_workers=self.num_workers)
        return self._loaders[split]

    def _cached(self, split: str, seed: int | None, draws: Tensor | None = None) -> DataLoader[Any]:
        features, targets = self._features[split], torch.from_numpy(self.manifest.subset(split).targets)
        views = len(features) // len(targets)
        order = RowSampler(len(targets), views=views, seed=seed, weights=draws)
        steps = self._steps(order, self._weigh(views)) if split == "train" else self._checks(order)
        # Read in this process: a batch is a copy of a few rows, and to send it from another would cost more.
        return self._load_parts(CachedDataset(features, targets), steps, num_workers=0)

    def _steps(self, order: Order, weights: Tensor | None) -> StepSampler:
        return StepSampler(order, batch_size=self.batch_size, split=self._split, weights=weights)

    def _checks(self, order: Order) -> StepSampler:
        # Batches as large as those of the training, so that they fit into memory where these do.
        split = Split(self._split.rank, self._split.world)
        return StepSampler(order, batch_size=self.batch_size // self._split.accumulate, split=split)

    def _weigh(self, views: int) -> Tensor | None:
        """Return the weight of each row in the loss; several labels per image have none of the image."""
        if self.balance is None or self.manifest.task == "multilabel":
            return None
        return self.balance[torch.from_numpy(self.manifest.subset("train").targets)].repeat(views)

    def _load_parts(self, batches: Dataset[Batch], parts: StepSampler, *, num_workers: int) -> DataLoader[Any]:
        return DataLoader(
            batches,
            batch_size=None,
            sampler=parts,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Without one of its own, a loader draws from torch's global generator.
            generator=torch.Generator().manual_seed(self.seed),
        )
