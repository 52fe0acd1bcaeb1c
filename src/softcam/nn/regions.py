"""Connected regions of evidence: what each of them adds to a logit, where it lies, and how large it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]

SHARE = 0.5
"""Share of the strongest evidence from which cells make regions, unless told otherwise."""


@dataclass(frozen=True)
class Placement:
    """Where the cells of a map lie in the original: they tile a window of it evenly.

    All tuples have one entry per dimension of the grid, in its order: (y, x) for images, (z, y, x) for volumes.

    Args:
        start: Where the window begins, in pixels.
        extent: Its length in pixels.
        size: Pixels of the original; what lies beyond them is cut off.
        spacing: Millimetres from one pixel to the next; None where they are not known.

    Raises:
        ValueError: If the tuples are not of one length, or an extent, a size or a spacing is not positive.

    Example:
        >>> Placement.of((200, 300)).find_edges((2, 3))[1].tolist()
        [0.0, 100.0, 200.0, 300.0]
    """

    start: tuple[float, ...]
    extent: tuple[float, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.start), len(self.extent), len(self.size), len(self.spacing or self.size)}
        if len(lengths) != 1 or not all(map(math.isfinite, (*self.start, *self.extent, *(self.spacing or ())))):
            raise ValueError(f"Expected a finite number per dimension of the grid in all of a placement, got {self}.")
        if min((*self.extent, *self.size, *(self.spacing or ()))) <= 0:
            raise ValueError(f"Expected `extent`, `size` and `spacing` to be above 0, but got {self}.")

    @classmethod
    def of(cls, size: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> Placement:
        """Return the placement of maps whose cells tile all of an original.

        Args:
            size: Its pixels along each dimension.
            spacing: Millimetres from one pixel to the next along each, where known.
        """
        whole = tuple(map(int, size))
        return cls((0.0,) * len(whole), tuple(map(float, whole)), whole, spacing)

    def find_edges(self, grid: tuple[int, ...]) -> list[npt.NDArray[np.float64]]:
        """Return where cells begin and end along each dimension, in pixels: one more edge than cells.

        Args:
            grid: Cells along each dimension.
        """
        self._check(grid)
        places = zip(self.start, self.extent, self.size, grid, strict=True)
        return [
            np.clip(start + np.arange(cells + 1) * (extent / cells), 0.0, float(size))
            for start, extent, size, cells in places
        ]

    def find_cells(self, grid: tuple[int, ...]) -> list[Indices]:
        """Return which cell each pixel's centre lies in, along each dimension; -1 where the network did not look.

        Args:
            grid: Cells along each dimension.

        Example:
            >>> [found.tolist() for found in Placement((0, 1), (2, 4), (2, 6)).find_cells((2, 2))]
            [[0, 1], [-1, 0, 0, 1, 1, -1]]
        """
        self._check(grid)
        return [_locate(*place) for place in zip(self.size, self.start, self.extent, grid, strict=True)]

    def spread(self, values: npt.NDArray[Any], *, outside: float) -> npt.NDArray[Any]:
        """Return values of cells on the pixels of the original, each that of the cell in which its centre lies.

        Args:
            values: (..., *grid).
            outside: Value of pixels that the network did not look at.

        Returns:
            (..., *size) of the same values, bit for bit.
        """
        mesh = np.ix_(*self.find_cells(tuple(values.shape[-len(self.size) :])))
        places: tuple[Any, ...] = (..., *mesh)
        pixels: npt.NDArray[Any] = values[places]
        pixels[..., reduce(np.logical_or, [indices < 0 for indices in mesh])] = outside
        return pixels

    def _check(self, grid: tuple[int, ...]) -> None:
        if len(grid) != len(self.size):
            raise ValueError(f"Expected a placement along each dimension of the grid {grid}, but got {self.size}.")


@dataclass(frozen=True, eq=False)
class Region:
    """Cells that touch along their sides and are all for a class, or all against it.

    Args:
        cells: Mask of the cells (*grid).
        supports: Whether they are for the class.
        contribution: What they add to the logit, or to its lead over the other class: their sum over all cells.
        peak: Index of the cell with the strongest evidence of the region.
        peak_value: Its evidence in logits.
        placement: Where the cells lie in the original.
    """

    cells: Mask
    supports: bool
    contribution: float
    peak: tuple[int, ...]
    peak_value: float
    placement: Placement

    @property
    def box(self) -> tuple[float, ...]:
        """The smallest box around the region in pixels of the original: x, y, width, height, as tables have it.

        Of a signal x and width; of a volume x, y, z, width, height, depth.
        """
        edges = self.placement.find_edges(self.cells.shape)
        spans = []
        for dim, places in enumerate(edges):
            taken = np.flatnonzero(self.cells.any(axis=tuple(other for other in range(len(edges)) if other != dim)))
            spans.append((float(places[taken[0]]), float(places[taken[-1] + 1])))
        spans.reverse()
        return (*(low for low, _ in spans), *(high - low for low, high in spans))

    @property
    def peak_point(self) -> tuple[float, ...]:
        """The middle of the peak's cell in pixels of the original: (x, y), or (x, y, z)."""
        edges = self.placement.find_edges(self.cells.shape)
        middles = [float(places[at] + places[at + 1]) / 2 for places, at in zip(edges, self.peak, strict=True)]
        return tuple(reversed(middles))

    @property
    def pixels(self) -> float:
        """Area in pixels of the original; of a signal its length, of a volume its voxels."""
        lengths = [np.diff(places) for places in self.placement.find_edges(self.cells.shape)]
        return float(reduce(np.multiply.outer, lengths)[self.cells].sum())

    @property
    def millimetres(self) -> float | None:
        """Area in mm², of a signal its length in mm, of a volume its mm³; None where the spacing is not known."""
        spacing = self.placement.spacing
        return None if spacing is None else self.pixels * math.prod(spacing)

    @property
    def mask(self) -> Mask:
        """The pixels of the original whose centres lie in the region, (*size)."""
        pixels: Mask = self.placement.spread(self.cells, outside=False)
        return pixels


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one map, which with the rest of its cells add up to the logit.

    Args:
        found: By falling absolute contribution.
        rest: Mask of the cells (*grid) that are in none of them.
        remainder: What the rest adds, in logits.
        threshold: Logits per cell, for or against, from which cells make regions; infinite for a map of zeros.
    """

    found: tuple[Region, ...]
    rest: Mask
    remainder: float
    threshold: float

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Region:
        return self.found[index]

    def __iter__(self) -> Iterator[Region]:
        return iter(self.found)

    @property
    def total(self) -> float:
        """The contributions of all regions and of the rest: the mean of the map, which is the logit."""
        return math.fsum((*(region.contribution for region in self.found), self.remainder))

    @property
    def support(self) -> Mask:
        """Mask of the cells (*grid) of all regions that are for the class."""
        masks = [region.cells for region in self.found if region.supports]
        return reduce(np.logical_or, masks, np.zeros_like(self.rest))


def find_regions(
    values: Floats,
    *,
    share: float | None = None,
    threshold: float | None = None,
    at_most: int | None = None,
    placement: Placement | None = None,
) -> Regions:
    """Return the connected regions of a map: cells that touch along their sides, all for or all against.

    Args:
        values: Evidence (*grid) in logits.
        share: Cells of at least this share of the map's strongest evidence, for or against, make regions; in (0, 1].
            Default: a half, where no `threshold` is given.
        threshold: Logits per cell to take instead; above 0.
        at_most: How many regions, those that contribute most; what the others add goes to the remainder. None for all.
        placement: Where the cells lie in the original; default: a cell is a pixel.

    Raises:
        ValueError: If a value is out of range, both thresholds are given, or the evidence is not finite.

    Example:
        >>> regions = find_regions(np.array([[2.0, 0.5, -1.0]]), threshold=1.0)
        >>> [(region.supports, round(region.contribution, 3), region.box) for region in regions], regions.remainder
        ([(True, 0.667, (0.0, 0.0, 1.0, 1.0)), (False, -0.333, (2.0, 0.0, 1.0, 1.0))], 0.16666666666666666)
    """
    check_limits(share, threshold, at_most)
    exact = np.asarray(values, np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("Expected finite evidence to find regions in, but got NaN or infinity.")
    place = placement or Placement.of(exact.shape)
    limit = threshold if threshold is not None else (share or SHARE) * float(np.abs(exact).max(initial=0.0))
    limit = limit or math.inf
    found = [*_list_regions(exact, exact >= limit), *_list_regions(exact, exact <= -limit)]
    found.sort(key=lambda labelled: -abs(labelled.contribution))
    kept = tuple(_describe(exact, labelled, place) for labelled in found[:at_most])
    rest = np.ones(exact.shape, np.bool_)
    for region in kept:
        rest &= ~region.cells
    return Regions(kept, rest, float(exact[rest].sum() / exact.size), limit)


def check_limits(share: float | None, threshold: float | None, at_most: int | None) -> None:
    """Refuse what cannot say which cells make regions, as `find_regions` takes it.

    Raises:
        ValueError: If a value is out of range, or both thresholds are given.
    """
    if share is not None and threshold is not None:
        raise ValueError("Expected `share` or `threshold`, but got both. Leave one out.")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"Expected `share` to be in (0, 1], but got {share}.")
    if threshold is not None and not 0 < threshold < math.inf:
        raise ValueError(f"Expected `threshold` to be finite and above 0, but got {threshold}.")
    if at_most is not None and at_most < 0:
        raise ValueError(f"Expected `at_most` to be at least 0, but got {at_most}.")


class _Labelled(NamedTuple):
    """A region as a number in an array of labels: masks are made of those alone that are kept."""

    labels: npt.NDArray[np.int32]
    number: int
    contribution: float


def _list_regions(values: npt.NDArray[np.float64], mask: Mask) -> list[_Labelled]:
    # Needed here alone, and slow to import.
    from scipy import ndimage  # noqa: PLC0415

    labels, _ = ndimage.label(mask)
    sums = np.bincount(labels.ravel(), values.ravel()) / values.size
    return [_Labelled(labels, number, float(sums[number])) for number in range(1, len(sums))]


def _describe(values: npt.NDArray[np.float64], found: _Labelled, placement: Placement) -> Region:
    cells = found.labels == found.number
    strength = np.where(cells, np.abs(values), -1.0)
    peak = tuple(int(index) for index in np.unravel_index(int(strength.argmax()), values.shape))
    value = float(values[peak])
    return Region(cells, value > 0, found.contribution, peak, value, placement)


def _locate(pixels: int, start: float, extent: float, cells: int) -> Indices:
    position = (np.arange(pixels) + 0.5 - start) / extent
    index = np.floor(position * cells).astype(np.intp)
    return np.where((position >= 0) & (position < 1), np.minimum(index, cells - 1), -1)
