"""Where things are: rectangles, and the exact way from network input back to the original image."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from softcam.imaging.records import read_record


class Rectangle(NamedTuple):
    """An axis-aligned rectangle in pixels; pixel (0, 0) covers the square from (0, 0) to (1, 1).

    Args:
        x: Left edge.
        y: Upper edge.
        width: Extent to the right, never negative.
        height: Extent downwards, never negative.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, upper, right and lower edge."""
        return self.x, self.y, self.x + self.width, self.y + self.height


@dataclass(frozen=True)
class Geometry:
    """The affine map from network input to original image: `original = input * scale + offset` on each axis.

    Coordinates are continuous: pixel `i` covers `[i, i + 1]` and its centre is `i + 0.5`. The original is the upright
    image, after its EXIF orientation was applied.

    Args:
        original_height: Height of the original in pixels.
        original_width: Width of the original in pixels.
        input_height: Height of the network input in pixels.
        input_width: Width of the network input in pixels.
        scale_x: Original pixels per input pixel, horizontally.
        scale_y: Original pixels per input pixel, vertically.
        offset_x: Original x of the input's left edge.
        offset_y: Original y of the input's upper edge.

    Raises:
        ValueError: If a size or scale is not positive, or a number is not finite.

    Example:
        >>> geometry = Geometry(200, 300, 100, 100, scale_x=2.0, scale_y=2.0, offset_x=50.0, offset_y=0.0)
        >>> geometry.to_original(50, 50)
        (150.0, 100.0)
        >>> geometry.cell_rectangle(0, 1, grid=(4, 4))
        Rectangle(x=100.0, y=0.0, width=50.0, height=50.0)
    """

    original_height: int
    original_width: int
    input_height: int
    input_width: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value) or (value <= 0 and not name.startswith("offset")):
                constraint = "finite" if name.startswith("offset") else "finite and positive"
                raise ValueError(f"Expected `{name}` to be {constraint}, but got {value}.")

    @property
    def view(self) -> Rectangle:
        """What the network sees of the original, in original pixels, clipped to the image."""
        return self._clipped(0, 0, self.input_width, self.input_height)

    def to_original(self, x: float, y: float) -> tuple[float, float]:
        """Map a point of the network input to the original.

        Args:
            x: Input pixels from the left edge.
            y: Input pixels from the upper edge.

        Returns:
            The point (x, y) in original pixels.
        """
        return x * self.scale_x + self.offset_x, y * self.scale_y + self.offset_y

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """Map a point of the original to the network input; it may fall outside what the network sees.

        Args:
            x: Original pixels from the left edge.
            y: Original pixels from the upper edge.

        Returns:
            The point (x, y) in input pixels.
        """
        return (x - self.offset_x) / self.scale_x, (y - self.offset_y) / self.scale_y

    def cell_rectangle(self, row: int, column: int, *, grid: tuple[int, int]) -> Rectangle:
        """Return the part of the original that one map cell stands for.

        Cells tile the network input evenly: this is a cell's place on the map, not its receptive field.

        Args:
            row: Cell row, 0 at the top.
            column: Cell column, 0 at the left.
            grid: Map size (h, w) in cells.

        Returns:
            The rectangle in original pixels, clipped to the image.

        Raises:
            IndexError: If the cell lies outside the grid.
        """
        rows, columns = grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise IndexError(f"Expected the cell to lie in the {rows}x{columns} grid, but got ({row}, {column}).")
        width, height = self.input_width / columns, self.input_height / rows
        return self._clipped(column * width, row * height, (column + 1) * width, (row + 1) * height)

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields as a dictionary of plain numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the fields as one line of JSON; `from_json` reads it back without loss."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Geometry:
        """Build a geometry from `to_dict`'s dictionary.

        Args:
            values: Every field by name, and no other key.

        Raises:
            TypeError: If `values` is not a mapping or a field is missing.
            ValueError: If a key is unknown or a value is out of range.
        """
        return read_record(cls, values)

    @classmethod
    def from_json(cls, text: str) -> Geometry:
        """Build a geometry from `to_json`'s text; the errors are those of `from_dict`."""
        return cls.from_dict(json.loads(text))

    def _clipped(self, left: float, top: float, right: float, bottom: float) -> Rectangle:
        # Clipping also takes away the last bit of rounding, so that a rectangle never leaves the image.
        (x0, y0), (x1, y1) = self.to_original(left, top), self.to_original(right, bottom)
        x0, x1 = (min(max(x, 0.0), float(self.original_width)) for x in (x0, x1))
        y0, y1 = (min(max(y, 0.0), float(self.original_height)) for y in (y0, y1))
        return Rectangle(x0, y0, x1 - x0, y1 - y0)
