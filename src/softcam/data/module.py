"""The Lightning data module: a manifest's splits as loaders."""

from __future__ import annotations

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from softcam.data.dataset import EpochSampler, ImageDataset, Item
from softcam.data.manifest import Manifest
from softcam.data.transforms import Augmentation
from softcam.errors import ManifestError
from softcam.imaging import Preprocessing

OVERLAP = 0.999
"""Share of an image that others of its class have shown already, once there are many."""


class ImageDataModule(LightningDataModule):
    """Loaders of `(images, targets, indices)` over a manifest's splits; only `train` is shuffled and augmented.

    No image is opened before it is needed; `manifest.check_images()` opens them all beforehand. Workers use one thread
    each, as torch sets them up.

    Args:
        manifest: Images with splits.
        preprocessing: From a decoded image to the network's input.
        augmentation: Random changes of training images; None for none.
        batch_size: Images per batch; the last one of an epoch may be smaller.
        num_workers: Processes that load images; 0 loads them in this one.
        seed: Of the order and the augmentation of training images.

    Raises:
        ValueError: If `batch_size` is below 1 or `num_workers` below 0.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ValueError(f"Expected `{name}` to be at least {least}, but got {value}. Raise it.")
        self.manifest = manifest
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Item]:
        """Return a loader of the training images, shuffled anew and changed at random in every epoch."""
        dataset = ImageDataset(self.manifest.subset("train"), self.preprocessing, self.augmentation, seed=self.seed)
        return self._load(dataset, EpochSampler(dataset, seed=self.seed))

    def val_dataloader(self) -> DataLoader[Item]:
        """Return a loader of the validation images in the manifest's order."""
        return self._load(ImageDataset(self.manifest.subset("val"), self.preprocessing))

    def test_dataloader(self) -> DataLoader[Item]:
        """Return a loader of the test images in the manifest's order."""
        return self._load(ImageDataset(self.manifest.subset("test"), self.preprocessing))

    def class_weights(self, *, effective: bool = False) -> Tensor:
        """Return weights, shape (K,), float32, that balance the classes of the training images.

        One class per image: `N / (K * N_k)`, for cross-entropy. Several: negatives per positive of each class, the
        `pos_weight` of binary cross-entropy.

        Args:
            effective: Whether a number of images `n` counts as `(1 - b^n) / (1 - b)` with `b` 0.999, since the more
                there are, the less one more adds.

        Reference:
            Cui et al. 2019, "Class-balanced loss based on effective number of samples", arXiv 1901.05555.

        Raises:
            ManifestError: If a class has no training image, or (several per image) every one.
        """
        manifest = self.manifest.subset("train")
        is_single = manifest.task == "multiclass"
        flags = np.eye(len(manifest.classes))[manifest.targets] if is_single else manifest.targets
        counts = flags.sum(axis=0)
        least = counts if is_single else np.minimum(counts, len(manifest) - counts)
        if (least == 0).any():
            names = [name for name, count in zip(manifest.classes, least, strict=True) if count == 0]
            raise ManifestError([f"Expected training images with and without each class, but not so for {names}."])
        others = len(manifest) - counts
        if effective:
            counts, others = ((1 - OVERLAP**images) / (1 - OVERLAP) for images in (counts, others))
        weights = counts.sum() / (counts.size * counts) if is_single else others / counts
        return torch.from_numpy(weights.astype(np.float32))

    def _load(self, dataset: ImageDataset, sampler: Sampler[int] | None = None) -> DataLoader[Item]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Without one of its own, a loader draws from torch's global generator.
            generator=torch.Generator().manual_seed(self.seed),
        )
