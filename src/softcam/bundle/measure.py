"""Measure what a model's images are like, on a part of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from softcam.bundle.inputs import FeatureStatistics, Floats, InputStatistics, to_range
from softcam.errors import ImageError
from softcam.imaging import Preprocessing, decode_image
from softcam.nn import SoftCAM, evaluating, pool_features

MOST = 512
"""Images of each kind that are measured; more would change little and cost much."""

_BATCH = 16
_DECODERS = 2


class _Facts(NamedTuple):
    size: tuple[int, int]
    channels: int
    bits: int
    image: Tensor


def measure_inputs(
    model: SoftCAM, preprocessing: Preprocessing, seen: Sequence[Path], held_out: Sequence[Path], *, seed: int = 0
) -> InputStatistics | None:
    """Return the statistics of images: all but the threshold of the features from those that the model was trained on.

    Up to 512 images of each kind are drawn by the seed; files that are no usable images are left out.

    Args:
        model: Where its parameters are; its mode stays as it is.
        preprocessing: How images become its inputs.
        seen: Files of the training.
        held_out: Files that it was not trained on; empty for no features.
        seed: Of the draw.

    Returns:
        None if none of the images could be read.
    """
    facts: list[_Facts] = []
    pooled = []
    intensities = []
    for batch in _read(_draw(seen, seed), preprocessing):
        images = torch.stack([entry.image for entry in batch])
        intensities.append(measure_intensities(images.numpy(), preprocessing))
        pooled.append(_pool(model, images))
        facts += [entry._replace(image=torch.empty(0)) for entry in batch]
    if not facts:
        return None
    means, deviations = np.concatenate(intensities, axis=1)
    others = [
        _pool(model, torch.stack([e.image for e in batch])) for batch in _read(_draw(held_out, seed), preprocessing)
    ]
    heights, widths = np.array([entry.size for entry in facts], float).T
    return InputStatistics(
        n=len(facts),
        height=to_range(heights),
        width=to_range(widths),
        aspect=to_range(widths / heights),
        channels=tuple(sorted({entry.channels for entry in facts})),
        bits=tuple(sorted({entry.bits for entry in facts})),
        mean=to_range(means),
        std=to_range(deviations),
        features=FeatureStatistics.measure(np.concatenate(pooled), np.concatenate(others)) if others else None,
    )


def measure_intensities(images: np.ndarray, preprocessing: Preprocessing) -> Floats:
    """Return mean and standard deviation of each input's intensity before it was normalised, (2, N), in [0, 1].

    Args:
        images: (N, C, H, W) network inputs.
        preprocessing: What they were normalised with.
    """
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    grey = (images * std + mean).mean(axis=1, dtype=np.float64).reshape(len(images), -1)
    return np.stack([grey.mean(1), grey.std(1)])


def _draw(paths: Sequence[Path], seed: int) -> list[Path]:
    if len(paths) <= MOST:
        return list(paths)
    chosen = np.random.default_rng(seed).choice(len(paths), MOST, replace=False)
    return [paths[index] for index in sorted(chosen)]


def _read(paths: Iterable[Path], preprocessing: Preprocessing) -> Iterator[list[_Facts]]:
    def read(path: Path) -> _Facts | None:
        try:
            image = decode_image(path)
        except (ImageError, OSError):
            return None
        return _Facts(image.full_size, image.channels, image.bits, preprocessing(image)[0])

    files = list(paths)
    with ThreadPoolExecutor(_DECODERS) as pool:
        for start in range(0, len(files), _BATCH):
            batch = [entry for entry in pool.map(read, files[start : start + _BATCH]) if entry is not None]
            if batch:
                yield batch


def _pool(model: SoftCAM, images: Tensor) -> Floats:
    place = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    kind = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    with evaluating(model), torch.inference_mode():
        pooled = pool_features(model.forward_features(images.to(place, kind, memory_format=torch.channels_last)))
    found: Floats = pooled.double().cpu().numpy()
    return found
