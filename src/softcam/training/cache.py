"""What a frozen trunk says of every image, computed once and kept on disk, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from softcam.data import ImageDataset
from softcam.data.dataset import draw_order
from softcam.errors import RunError
from softcam.files import write_atomic
from softcam.nn import evaluating, run_until
from softcam.runs import awaited
from softcam.training.batches import Batch, Part

Features = NDArray[np.float16]
Report = Callable[[int, int], None]

RECORD_EVERY = 512
"""Rows after which progress is made durable: each time waits for the disk, and little is lost in between."""


@dataclass(frozen=True)
class CachePlan:
    """What is cached, and where.

    Args:
        path: The `.npy` file. Its name has to change with whatever the features depend on, see `cache_key`.
        name: The submodule whose output is kept, named as in the black box.
        views: Augmented versions of each image, >= 1.
        batch_size: Images per forward pass.
        num_workers: Processes that decode images.
    """

    path: Path
    name: str
    views: int = 1
    batch_size: int = 32
    num_workers: int = 0


def cache_key(**parts: Any) -> str:
    """Return a digest of everything that cached features depend on.

    Args:
        parts: JSON values, such as digests of data and weights.

    Example:
        >>> cache_key(seed=1, trunk="blocks.4") == cache_key(trunk="blocks.4", seed=1) != cache_key(seed=2)
        True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cache_features(
    model: nn.Module, dataset: ImageDataset, plan: CachePlan, *, report: Report | None = None
) -> Features:
    """Return a submodule's output for every view of every image, from the disk if it is there.

    Row `view * len(dataset) + index` belongs to that view of that image; a view is the dataset's epoch of that number.
    An interrupted computation is continued; the file appears under its name only once it is whole. Of several processes
    that want the same file, one computes it and the others wait.

    Args:
        model: Any module that has the submodule; it is run in eval mode and left as it was.
        dataset: The images.
        plan: What is cached, and where.
        report: Called with the rows that are done and the rows in all.

    Returns:
        (views * N, ...) float16, memory-mapped, read-only.

    Raises:
        RunError: If the features do not fit on the disk or into float16.
    """
    plan.path.parent.mkdir(parents=True, exist_ok=True)
    with awaited(plan.path.with_suffix(".lock")):
        _fill(model, dataset, plan, report)
    features: Features = np.load(plan.path, mmap_mode="r")
    return features


def _fill(model: nn.Module, dataset: ImageDataset, plan: CachePlan, report: Report | None) -> None:
    if not plan.path.is_file():
        filling = _Filling(plan.path, rows=plan.views * len(dataset))
        with evaluating(model):
            for block in _blocks(model, dataset, plan, start=filling.done):
                filling.append(block)
                if report is not None:
                    report(filling.done, filling.rows)
        filling.finish()
    elif report is not None:
        report(plan.views * len(dataset), plan.views * len(dataset))


def _blocks(model: nn.Module, dataset: ImageDataset, plan: CachePlan, *, start: int) -> Iterator[Features]:
    device = next(model.parameters()).device
    for view in range(start // len(dataset), plan.views):
        dataset.set_epoch(view)
        first = start - view * len(dataset) if view == start // len(dataset) else 0
        rest = Subset(dataset, range(first, len(dataset)))
        # A loader without a generator of its own would draw from torch's global one.
        generator = torch.Generator().manual_seed(0)
        for images, *_ in DataLoader(rest, plan.batch_size, num_workers=plan.num_workers, generator=generator):
            yield _half(_run_trunk(model, plan.name, images.to(device)), plan.name)


def _run_trunk(model: nn.Module, name: str, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return run_until(model, name, images.contiguous(memory_format=torch.channels_last))


def _half(features: Tensor, name: str) -> Features:
    block = features.to(torch.float16)
    if not bool(torch.isfinite(block).all()):
        raise RunError(
            f"Expected the output of {name!r} to be finite and below 65504, but got other values. "
            "Choose another submodule for `stages.trunk`."
        )
    return block.cpu().contiguous().numpy()


class _Filling:
    """An array that grows on disk beside its final name, and remembers how many rows are done.

    Args:
        path: The final name.
        rows: Rows in all.
    """

    def __init__(self, path: Path, *, rows: int) -> None:
        self.rows = rows
        self._path = path
        self._partial = path.with_suffix(".partial")
        self._record = path.with_suffix(".rows")
        self._array: Features | None = None
        self.done = 0
        if self._partial.is_file() and self._record.is_file():
            self._array = open_memmap(self._partial, mode="r+")
            self.done = int(self._record.read_text(encoding="utf-8"))
        self._recorded = self.done

    def append(self, block: Features) -> None:
        """Put rows behind those that are done."""
        array = self._array if self._array is not None else self._open(block)
        array[self.done : self.done + len(block)] = block
        self.done += len(block)
        if self.done - self._recorded >= RECORD_EVERY or self.done == self.rows:
            array.flush()  # type: ignore[attr-defined]
            write_atomic(self._record, str(self.done))
            self._recorded = self.done

    def finish(self) -> None:
        """Give the whole array its name."""
        self._array = None
        self._partial.replace(self._path)
        self._record.unlink()

    def _open(self, block: Features) -> Features:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        shape = (self.rows, *block.shape[1:])
        needed, free = int(np.prod(shape)) * block.itemsize, shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise RunError(
                f"Expected {needed / 1e9:.1f} GB of free disk space for cached features, but got {free / 1e9:.1f} GB. "
                "Choose a later `stages.trunk` or fewer `views`."
            )
        self._array = open_memmap(self._partial, mode="w+", dtype=np.float16, shape=shape)
        return self._array


class CachedDataset(Dataset[Batch]):
    """Batches of cached features: an item is that of a `Part`.

    A copy of it, such as a worker process gets, maps the same file: the pages of the disk's cache are shared by all.

    Args:
        features: (views * N, ...) float16, as `cache_features` returns them.
        targets: Class indices (N,), or flags (N, K).
    """

    def __init__(self, features: Features, targets: Tensor) -> None:
        self._features = features
        self._targets = targets

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, part: Part) -> Batch:
        indices = torch.tensor(part.rows) % len(self._targets)
        # The rows are copied out of the file, then widened.
        features = torch.from_numpy(self._features[part.rows]).float()
        return features, self._targets[indices], indices, part.share

    def __getstate__(self) -> dict[str, Any]:
        name = getattr(self._features, "filename", None)
        return self.__dict__ | ({} if name is None else {"_features": Path(name)})

    def __setstate__(self, state: dict[str, Any]) -> None:
        features = state["_features"]
        is_file = isinstance(features, Path)
        self.__dict__ = state | ({"_features": np.load(features, mmap_mode="r")} if is_file else {})


class RowSampler(Sampler[int]):
    """Rows of cached features: images in their order of the epoch, their views in turn.

    Args:
        images: Images, >= 1.
        views: Views of each image, >= 1.
        seed: Of the order of images; None keeps them in their own.
        weights: (N,) how often each image is drawn, with replacement; by default each is there once per epoch.
    """

    def __init__(self, images: int, *, views: int, seed: int | None, weights: Tensor | None = None) -> None:
        self._images = images
        self._views = views
        self._seed = seed
        self._weights = weights
        self._epoch = 0

    def __len__(self) -> int:
        return self._images

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self._images)
        if self._seed is not None:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
            order = draw_order(self._images, generator, self._weights)
        rows = (order + self._epoch) % self._views * self._images + order
        return iter(rows.tolist())

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass the one of this epoch, counted from 0."""
        self._epoch = epoch
