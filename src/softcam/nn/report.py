"""What a conversion found, copied and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class ConversionReport:
    """How a black box became a SoftCAM model.

    Args:
        head: Kind of class evidence layer, e.g. `linear`.
        exact: Whether the maps average to the black box's own logits.
        error: Largest `max |new - old| / max |old|` on the probe images, where new are the logits and the means of the
            maps; None for a layer that is new or not exact.
        channels: D, channels of the features under the evidence layer.
        num_classes: K, number of classes.
        layout: Order of the feature dimensions in the black box (NCHW, NHWC or NLC).
        input_size: Height and width of the probe images in pixels (length of signals; depth, height, width of volumes).
        grid: Cells of a map at that size, (h, w), (l,) or (d, h, w).
        map_stride: Input pixels from one cell to the next along each dimension.
        receptive_field: Input pixels along each dimension of all that the central cell depends on, measured through
            its gradient on a probe image; it cannot exceed `input_size`.
        theoretical_receptive_field: The same as the layers allow it on images of any size, where places were chosen;
            None along a dimension in which a global step lets every cell see everything. Empty if it was not asked
            for: `softcam.nn.theoretical_receptive_field` takes seconds.
        dropout: Probability of the classifier's dropout, carried over to whole feature channels.
        notes: What else a user should know.
        drift: Largest `max |new - old| / max |old|` of the logits on the probe images before any fine-tuning, for a
            layer that was copied as well as could be, or for finer maps; else None.
        places: Modules under whose outputs the class evidence layers sit; empty for the place of the black box's own
            pooling.
        arguments: What was asked of `convert` that shapes the model, such as `head`, `at` or `map_stride`.
    """

    head: str
    exact: bool
    error: float | None
    channels: int
    num_classes: int
    layout: str
    input_size: tuple[int, ...]
    grid: tuple[int, ...]
    map_stride: tuple[int, ...]
    receptive_field: tuple[int, ...]
    dropout: float = 0.0
    notes: tuple[str, ...] = ()
    drift: float | None = None
    places: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    theoretical_receptive_field: tuple[int | None, ...] = ()

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
        lines = [
            f"head            {self.head} ({'exact' if self.exact else 'not exact'}; {self._measured()})",
            f"classes         {self.num_classes} from {self.channels} channels ({self.layout})",
            *([f"place           {', '.join(self.places)}"] if self.places else []),
            f"evidence maps   {_by(self.grid)} cells at {_by(self.input_size)} px",
            f"map stride      {_by(self.map_stride)} px",
            f"a cell sees     {_by(self.receptive_field)} px (measured at this input size){self._bound()}",
        ]
        return "\n".join(lines + [f"note            {note}" for note in self.notes])

    def _bound(self) -> str:
        if not self.theoretical_receptive_field:
            return ""
        if None in self.theoretical_receptive_field:
            return "; all of an image of any size, through a global step"
        return f"; {_by(self.theoretical_receptive_field)} px by its layers"

    def _measured(self) -> str:
        drift = "" if self.drift is None else f"logits drift by {self.drift:.2g} of their size"
        if self.error is None:
            return drift or "new, to be trained"
        # Finer maps have both: the error is against the network made finer, the drift against the black box.
        return f"largest relative error {self.error:.1e}" + (f"; {drift}" if drift else "")


def _by(sizes: Sequence[int | None]) -> str:
    return "x".join(map(str, sizes))
