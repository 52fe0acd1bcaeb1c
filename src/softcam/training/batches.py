"""Batches: the images of an optimisation step, shared between processes and micro-batches without loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from softcam.data import ImageDataset


class Share(NamedTuple):
    """How much of an optimisation step a batch is.

    Means over a batch times its factor, averaged over the step's batches, are means over all images of the step: also
    where the batches are of unequal size, or hold unequal class weights.

    Args:
        size: Images of the whole step.
        images: Factor of means over images; 0 for a batch that only keeps its process in step with the others.
        weights: Factor of means that are weighted by class.
    """

    size: int
    images: float = 1.0
    weights: float = 1.0


Batch = tuple[Tensor, Tensor, Tensor, Share]
"""Images or cached features, targets, positions in the split, and their share of the step."""


@dataclass(frozen=True)
class Split:
    """How the images of an optimisation step are split.

    Args:
        rank: Number of this process, from 0.
        world: Processes, >= 1.
        accumulate: Micro-batches of each process, >= 1.
    """

    rank: int = 0
    world: int = 1
    accumulate: int = 1

    @property
    def parts(self) -> int:
        """Batches of a step in all."""
        return self.world * self.accumulate


class Part(NamedTuple):
    """The rows of a batch, and their share of the step."""

    rows: list[int]
    share: Share


class Order(Protocol):
    """A sampler of rows."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class StepSampler(Sampler[Part]):
    """A process's part of each optimisation step.

    The steps are those of a single process. Each is split as evenly as it goes; a process that is left without an image
    at the end of an epoch repeats one that counts for nothing, so that all processes take the same number of batches.

    Args:
        sampler: Rows in their order.
        batch_size: Rows of a step, >= 1.
        split: How a step is split.
        weights: Weight of each row in a loss that is weighted by class; by default all count alike.
    """

    def __init__(
        self, sampler: Order, *, batch_size: int, split: Split | None = None, weights: Tensor | None = None
    ) -> None:
        self.sampler = sampler
        self._batch_size = batch_size
        self._split = split or Split()
        self._weights = None if weights is None else weights.double()

    def __len__(self) -> int:
        return math.ceil(len(self.sampler) / self._batch_size) * self._split.accumulate

    def __iter__(self) -> Iterator[Part]:
        for step in torch.split(torch.tensor(list(self.sampler)), self._batch_size):
            pieces = step.tensor_split(self._split.parts)
            for piece in pieces[self._split.rank :: self._split.world]:
                yield self._weigh(piece, step)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass the one of this epoch, if the order depends on it.

        Args:
            epoch: Number of the epoch, from 0.
        """
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def _weigh(self, piece: Tensor, step: Tensor) -> Part:
        if len(piece) == 0:
            return Part(step[:1].tolist(), Share(len(step), 0.0, 0.0))
        parts = self._split.parts
        images = len(piece) / len(step) * parts
        if self._weights is None:
            return Part(piece.tolist(), Share(len(step), images, images))
        weights = float(self._weights[piece].sum() / self._weights[step].sum()) * parts
        return Part(piece.tolist(), Share(len(step), images, weights))


class ImageBatches(Dataset[Batch]):
    """Batches of images: an item is that of a `Part`.

    Args:
        images: The images.
    """

    def __init__(self, images: ImageDataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: Part) -> Batch:
        items: Any = default_collate([self.images[row] for row in part.rows])
        return (*items, part.share)
