"""Cells on the pixels of the source: each pixel gets exactly the value of the cell that its centre lies in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from softcam.imaging import Geometry

Indices = npt.NDArray[np.intp]


def find_cells(geometry: Geometry, grid: tuple[int, int]) -> tuple[Indices, Indices]:
    """Return which row and which column of cells each row and each column of pixels belongs to.

    Args:
        geometry: From the network's input, which the cells tile evenly, to the original.
        grid: Cells (h, w).

    Returns:
        (H,) and (W,) indices; -1 where the network did not look.

    Example:
        >>> geometry = Geometry(2, 6, 4, 4, scale_x=1.0, scale_y=0.5, offset_x=1.0, offset_y=0.0)
        >>> [indices.tolist() for indices in find_cells(geometry, (2, 2))]
        [[0, 1], [-1, 0, 0, 1, 1, -1]]
    """
    rows = _place(geometry.original_height, geometry.offset_y, geometry.input_height * geometry.scale_y, grid[0])
    columns = _place(geometry.original_width, geometry.offset_x, geometry.input_width * geometry.scale_x, grid[1])
    return rows, columns


def spread(values: npt.NDArray[np.float32], geometry: Geometry, *, outside: float) -> npt.NDArray[np.float32]:
    """Return values of cells on the pixels of the original.

    Args:
        values: (..., h, w).
        geometry: From the network's input to the original.
        outside: Value of pixels that the network did not look at.

    Returns:
        (..., H, W) of the same values, bit for bit.
    """
    rows, columns = find_cells(geometry, (values.shape[-2], values.shape[-1]))
    pixels = values[..., rows[:, None], columns[None, :]]
    pixels[..., (rows[:, None] < 0) | (columns[None, :] < 0)] = outside
    return pixels


def _place(pixels: int, start: float, extent: float, cells: int) -> Indices:
    position = (np.arange(pixels) + 0.5 - start) / extent
    index = np.floor(position * cells).astype(np.intp)
    return np.where((position >= 0) & (position < 1), np.minimum(index, cells - 1), -1)
