"""Images of a manifest as tensors, changed at random in a way that depends on seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from softcam.data.manifest import Manifest
from softcam.data.transforms import Augmentation
from softcam.errors import ImageError
from softcam.imaging import Preprocessing, decode_image

Item: TypeAlias = tuple[Tensor, Tensor, int]


class ImageDataset(Dataset[Item]):
    """Items `(image, target, index)` of a manifest: (C, S, S) float32 normalised, class index or (K,) flags, position.

    The augmentation of an item is drawn from (`seed`, epoch, index), so it does not depend on the number of worker
    processes or on the order of items, and leaves torch's own generators as they were.

    Args:
        manifest: The images.
        preprocessing: From a decoded image to the network's input.
        augmentation: Random changes between resizing and normalising; None for none.
        seed: Draws other changes for another number.

    Raises:
        ImageError: By an item whose file is not a usable image, naming its row; `Manifest.check_images` finds them all.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.manifest = manifest
        self.preprocessing = preprocessing
        self._targets = torch.from_numpy(manifest.targets)
        self._change = None if augmentation is None or augmentation.is_off else augmentation.build()
        self._seed = seed
        # Shared memory, so that worker processes that outlive an epoch see the next one begin.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Item:
        image = self._load(index)
        if self._change is not None:
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed, which would reseed the GPU behind the training's back.
                torch.default_generator.manual_seed(_mix(self._seed, int(self._epoch), index))
                image = self._change(image)
        return self.preprocessing.normalize(image), self._targets[index], index

    def set_epoch(self, epoch: int) -> None:
        """Draw the random changes of this epoch from now on, in every worker process.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._epoch.fill_(epoch)

    def _load(self, index: int) -> Tensor:
        relative = self.manifest.cell(index, "image")
        try:
            image, _ = self.preprocessing.resize(decode_image(self.manifest.root / relative))
        except ImageError as error:
            row = "" if self.manifest.rows is None else f"{self.manifest.place(index)}, "
            raise ImageError(f"{row}file {relative!r}: {error}") from error
        return image


class EpochSampler(Sampler[int]):
    """Positions of a dataset in an order drawn from (`seed`, epoch) alone, so that a resumed run sees the same order.

    Each pass moves on to the next epoch by itself and tells the dataset; a trainer that resumes says `set_epoch` first.

    Args:
        dataset: The images to be shuffled.
        seed: Draws other orders for another number.
        weights: (N,) how often each image is drawn, with replacement, relative to the others; by default each is taken
            once.
    """

    def __init__(self, dataset: ImageDataset, *, seed: int = 0, weights: Tensor | None = None) -> None:
        self._dataset = dataset
        self._weights = weights
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        self._dataset.set_epoch(epoch)
        generator = torch.Generator().manual_seed(_mix(self._seed, epoch))
        return iter(draw_order(len(self), generator, self._weights).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass the one of this epoch.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._epoch = epoch


def draw_order(count: int, generator: torch.Generator, weights: Tensor | None = None) -> Tensor:
    """Return positions (N,) in a random order.

    Args:
        count: N.
        generator: What draws.
        weights: (N,) positive, how often each is drawn, with replacement; by default each is there once.
    """
    if weights is None:
        return torch.randperm(count, generator=generator)
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def _mix(*numbers: int) -> int:
    # Neighbouring seeds, epochs and positions must not give related streams.
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
