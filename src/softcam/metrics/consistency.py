"""Whether local evidence agrees with the image's label, by its sign and by its place in a mosaic; needs no mask."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.metrics.inputs import check_maps
from softcam.metrics.patches import fit_maps
from softcam.metrics.queries import Explain, ask_maps, check_images, check_target


def positive_share(maps: Tensor) -> Tensor:
    """Share of cells with evidence for the class (> 0), for the disease maps of images with the disease.

    A cell at exactly 0 speaks neither for nor against and counts as neither.

    Args:
        maps: (N, h, w) raw signed maps in logit units.

    Returns:
        (N,) float64 in [0, 1]; defined for every map. Higher is more consistent for images of the class, but a
        lesion that fills few cells rightly gives a small share: compare models on the same images.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong or a value is not finite.

    >>> positive_share(torch.tensor([[[1.0, -1.0], [0.0, 2.0]]])).item()
    0.5

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748 (local-to-global consistency).
    """
    return (check_maps(maps) > 0).double().mean((1, 2))


def negative_share(maps: Tensor) -> Tensor:
    """Share of cells with evidence against the class (< 0), for the disease maps of healthy images.

    A cell at exactly 0 speaks neither for nor against and counts as neither.

    Args:
        maps: (N, h, w) raw signed maps in logit units.

    Returns:
        (N,) float64 in [0, 1], higher is more consistent for healthy images; defined for every map.

    Raises:
        TypeError: If `maps` are not floating point.
        ValueError: If the shape is wrong or a value is not finite.

    >>> negative_share(torch.tensor([[[1.0, -1.0], [0.0, 2.0]]])).item()
    0.25

    Reference: Djoumessi & Berens 2026, arXiv 2505.17748 (local-to-global consistency).
    """
    return (check_maps(maps) < 0).double().mean((1, 2))


def grid_pointing_game(explain: Explain, images: Tensor, labels: Tensor, *, grid: int, seed: int = 0) -> Tensor:
    """Share of the positive evidence for an image's class that lies on the image, in a mosaic with other classes.

    Each image is put into a mosaic of grid x grid images of different classes, at a place drawn at random, and the
    mosaic is fed to the network. As in the reference, all images keep their size, so the mosaic is `grid` times as high
    and wide, and the network must take that size. The reference scores all classes of a mosaic; here every image has
    a mosaic of its own and its class alone is scored. Where there are fewer classes than places, as with two classes,
    others repeat, but never the image's own. The reference takes images that the model classifies rightly and with
    confidence: pass those.

    Args:
        explain: Mosaics (M, C, grid H, grid W) and class indices (M,) to maps (M, h, w), resized bilinearly; any
            callable, such as `lambda images, target: model.evidence(images).map_of(target)`. Called up to grid^2 times
            with about N / grid^2 mosaics, which have as many pixels as `images`.
        images: (N, C, H, W) network inputs, from which the others are drawn, too.
        labels: (N,) class indices.
        grid: Images along each side of the mosaic, at least 2.
        seed: Seed of a generator of its own.

    Returns:
        (N,) float64 in [0, 1], higher is better, 1 / grid^2 is chance; NaN for a map without positive evidence (which
        the reference's code scores 0) and for an image with fewer than grid^2 - 1 images of other classes.

    Raises:
        TypeError: If maps are not floating point.
        ValueError: If shapes do not fit, a map is not finite, or `grid` is below 2.

    Reference: Böhle et al. 2021, arXiv 2104.00032 (localisation metric); named so by Rao et al. 2022, arXiv 2205.10435.
    """
    if grid < 2:
        raise ValueError(f"Expected `grid` to be at least 2, but got {grid}. Take 2 or 3.")
    inputs = check_images(images)
    target = check_target(labels, len(inputs), "labels")
    rows, tiles, places = _draw_mosaics(target.cpu().numpy(), grid**2, seed)
    values = torch.full((len(inputs),), torch.nan, dtype=torch.float64, device=inputs.device)
    # As many mosaics at a time as have the pixels of `images`.
    step = -(-len(inputs) // grid**2)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        mosaics = _join(inputs[tiles[start : start + step].to(inputs.device)], grid)
        maps = ask_maps(explain, mosaics, target[part.to(target.device)])
        values[part.to(values.device)] = _share_at(fit_maps(maps, mosaics), places[start : start + step], grid)
    return values


def _draw_mosaics(labels: NDArray[np.int64], tiles: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a mosaic for each image that can have one.

    Returns:
        These images (M,), the images in their mosaics (M, tiles), and where in them they are themselves (M,).
    """
    generator = np.random.default_rng(seed)
    rows, mosaics, places = [], [], []
    for image, label in enumerate(labels):
        others = generator.permutation(np.flatnonzero(labels != label))
        place = int(generator.integers(tiles))
        if len(others) >= tiles - 1:
            # One of each class comes first, so that a class repeats only where there are too few.
            first = np.sort(np.unique(labels[others], return_index=True)[1])
            chosen = np.concatenate([others[first], np.delete(others, first)])[: tiles - 1]
            rows.append(image)
            places.append(place)
            mosaics.append(np.insert(chosen, place, image))
    return torch.tensor(rows), torch.from_numpy(np.array(mosaics, dtype=np.int64)), torch.tensor(places)


def _join(tiles: Tensor, grid: int) -> Tensor:
    """Join (M, grid^2, C, H, W) row by row to (M, C, grid H, grid W)."""
    count, _, channels, height, width = tiles.shape
    rows = tiles.reshape(count, grid, grid, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(count, channels, grid * height, grid * width)


def _share_at(maps: Tensor, places: Tensor, grid: int) -> Tensor:
    """Share of the positive part of (M, grid H, grid W) maps that lies in one tile each; NaN if there is none."""
    count, height, width = maps.shape
    parts = maps.clamp_min(0).reshape(count, grid, height // grid, grid, width // grid).sum((2, 4)).flatten(1)
    return parts.gather(1, places.to(parts.device)[:, None])[:, 0] / parts.sum(1)
