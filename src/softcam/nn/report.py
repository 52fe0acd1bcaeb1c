"""What a conversion found, copied and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ConversionReport:
    """How a black box became a SoftCAM model.

    Args:
        head: Kind of class evidence layer, e.g. `linear`.
        exact: Whether the maps average to the black box's own logits.
        error: Largest `max |new - old| / max |old|` on the probe images, where new are the logits and the means of the
            maps; None for a new layer.
        channels: D, channels of the features under the evidence layer.
        num_classes: K, number of classes.
        layout: Order of the feature dimensions in the black box (NCHW, NHWC or NLC).
        input_size: Height and width of the probe images in pixels.
        grid: Cells (h, w) of a map at that size.
        map_stride: Input pixels from one cell to the next, vertically and horizontally.
        receptive_field: Height and width in input pixels of all that the central cell depends on, measured through
            its gradient on a probe image; it cannot exceed `input_size`.
        dropout: Probability of the classifier's dropout, carried over to whole feature channels.
        notes: What else a user should know.
    """

    head: str
    exact: bool
    error: float | None
    channels: int
    num_classes: int
    layout: str
    input_size: tuple[int, int]
    grid: tuple[int, int]
    map_stride: tuple[int, int]
    receptive_field: tuple[int, int]
    dropout: float = 0.0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConversionReport:
        """Return the report that `to_dict` gave.

        Raises:
            ValueError: If a key is unknown or missing.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"Expected the keys of a conversion report, but got unknown {unknown}.")
        restored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            return cls(**restored)
        except TypeError as error:
            raise ValueError(f"Expected all keys of a conversion report, but {error}.") from error

    def __str__(self) -> str:
        measured = "new, to be trained" if self.error is None else f"largest relative error {self.error:.1e}"
        height, width = self.input_size
        lines = [
            f"head            {self.head} ({'exact' if self.exact else 'not exact'}; {measured})",
            f"classes         {self.num_classes} from {self.channels} channels ({self.layout})",
            f"evidence maps   {self.grid[0]}x{self.grid[1]} cells at {height}x{width} px",
            f"map stride      {self.map_stride[0]}x{self.map_stride[1]} px",
            f"a cell sees     {self.receptive_field[0]}x{self.receptive_field[1]} px (measured at this input size)",
        ]
        return "\n".join(lines + [f"note            {note}" for note in self.notes])
