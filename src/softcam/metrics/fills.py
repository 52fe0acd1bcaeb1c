"""What takes the place of removed pixels: a constant, a blurred copy, or ROAD's noisy linear imputation.

A fill is called once with the images and returns a function from an (N, H, W) mask of removed pixels to images, so
that what does not depend on the mask is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

Remover: TypeAlias = Callable[[Tensor], Tensor]
Fill: TypeAlias = Callable[[Tensor], Remover]

# Half of the eight neighbours with their weights; the other half is reached from the other side.
_NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))


@dataclass(frozen=True)
class ConstantFill:
    """One value for every removed pixel.

    Args:
        value: In the unit of the network's input; 0 is the mean of the data set in normalized space.
    """

    value: float = 0.0

    def __call__(self, images: Tensor) -> Remover:
        """Prepare (N, C, H, W) images."""
        return lambda removed: images.masked_fill(removed.unsqueeze(1), self.value)


@dataclass(frozen=True)
class BlurFill:
    """A Gaussian-blurred copy of the image (mirrored at its edges, cut off at three standard deviations).

    Args:
        sigma: Standard deviation as a share of the shorter side, above 0. 0.05 is 11 px at 224.

    Raises:
        ValueError: If `sigma` is not above 0.

    Reference: Fong & Vedaldi 2017, arXiv 1704.03296, section 4.1.
    """

    sigma: float = 0.05

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"Expected `sigma` to be above 0, but got {self.sigma}. Try 0.05.")

    def __call__(self, images: Tensor) -> Remover:
        """Prepare (N, C, H, W) images."""
        sigma = self.sigma * min(images.shape[-2:])
        down, across = (_blur_matrix(length, sigma).to(images) for length in images.shape[-2:])
        blurred = down @ images @ across.mT
        # Weights of 0 and 1 choose one or the other exactly, and much faster than `torch.where` on a CPU.
        return lambda removed: images.lerp(blurred, removed.unsqueeze(1).to(images))


@dataclass(frozen=True)
class NoisyLinearFill:
    """Removed pixels as the weighted mean of their eight neighbours, all at once, plus noise.

    Direct neighbours weigh 1/6, diagonal ones 1/12; at the image's edge the weights that remain are scaled to 1.
    The mask itself then says little about the class, which a constant fill cannot promise. An image of which nothing
    is left becomes 0 plus noise.

    Args:
        noise: Standard deviation of the noise in the unit of the network's input, at least 0.
        seed: Seed of a generator of its own, started anew for each batch of images.

    Raises:
        ValueError: If `noise` is negative.

    Reference: Rong et al. 2022 (ROAD), arXiv 2202.00449, section 4.2.
    """

    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise ValueError(f"Expected `noise` to be at least 0, but got {self.noise}. Try 0.01.")

    def __call__(self, images: Tensor) -> Remover:
        """Prepare (N, C, H, W) images."""
        generator = torch.Generator().manual_seed(self.seed)

        def remove(removed: Tensor) -> Tensor:
            # The solver leaves the interpreter to others while it works.
            with ThreadPoolExecutor(torch.get_num_threads()) as threads:
                smooth = torch.stack(list(threads.map(_impute, images, removed)))
            noise = self.noise * torch.randn(images.shape, generator=generator, dtype=images.dtype)
            return torch.where(removed.unsqueeze(1), smooth + noise.to(images.device), images)

        return remove


FILLS: dict[str, Fill] = {"mean": ConstantFill(), "blur": BlurFill(), "noisy_linear": NoisyLinearFill()}


def find_fill(fill: str | float | Fill) -> Fill:
    """Return the fill of a name in `FILLS`, of a constant, or the fill itself.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(fill, str):
        if fill not in FILLS:
            raise ValueError(f"Expected `fill` to be one of {sorted(FILLS)}, but got {fill!r}. Or pass a value.")
        return FILLS[fill]
    return fill if callable(fill) else ConstantFill(fill)


def _blur_matrix(length: int, sigma: float) -> Tensor:
    """Return each blurred pixel of a row as weights of the row's pixels, (length, length) float64.

    Mirroring cannot reach further than the row is long. One product for all rows is many times faster than a
    convolution with so long a kernel.
    """
    radius = min(math.ceil(3 * sigma), length - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), 0)
    last = length - 1
    places = last - (last - (torch.arange(length)[:, None] + offsets).abs()).abs()
    shares = weights.expand(length, -1)
    return torch.zeros(length, length, dtype=torch.float64).scatter_add_(1, places.long(), shares)


def _impute(image: Tensor, removed: Tensor) -> Tensor:
    """Solve for the removed pixels of one (C, H, W) image; the rest comes back as it is."""
    mask = removed.cpu().numpy()
    if mask.all():
        return torch.zeros_like(image)
    if not mask.any():
        return image
    # A copy: the array of a float64 image on the CPU would share its memory.
    pixels = image.detach().double().cpu().numpy().reshape(image.shape[0], -1).T.copy()
    hidden = mask.ravel()
    system = _laplacian(mask.shape)[hidden]
    # Symmetric and diagonally dominant: the ordering for such systems is several times faster than the default.
    solver = splu(system[:, hidden].tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    pixels[hidden] = solver.solve(-(system[:, ~hidden] @ pixels[~hidden]))
    return torch.from_numpy(pixels.T.reshape(image.shape)).to(image)


@lru_cache(maxsize=4)
def _laplacian(shape: tuple[int, ...]) -> sparse.csr_matrix:
    """Weighted graph Laplacian of the pixel grid: a row times the pixels is 0 where a pixel is its neighbours' mean."""
    index = np.arange(math.prod(shape)).reshape(shape)
    starts, ends, weights = zip(*(_edges(index, *neighbour) for neighbour in _NEIGHBOURS), strict=True)
    edges = np.concatenate(weights), (np.concatenate(starts), np.concatenate(ends))
    one_way = sparse.coo_matrix(edges, shape=(index.size, index.size))
    both = (one_way + one_way.T).tocsr()
    return (sparse.diags(np.asarray(both.sum(1)).ravel()) - both).tocsr()


def _edges(index: NDArray[np.intp], down: int, right: int, weight: float) -> tuple[NDArray[Any], ...]:
    height, width = index.shape
    start = index[: height - down, max(0, -right) : width - max(0, right)].ravel()
    end = index[down:, max(0, right) : width + min(0, right)].ravel()
    return start, end, np.full(start.size, weight)
