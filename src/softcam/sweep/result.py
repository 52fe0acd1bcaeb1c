"""What a sweep found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from softcam.runs import plain


@dataclass(frozen=True)
class PlaceRow:
    """A model with its evidence layer at one place, on validation images.

    Args:
        place: As `parse_place` reads it.
        modules: Where the class evidence layers sit; empty for the place of the pooling.
        map_stride: Input pixels from one cell to the next.
        grid: Cells of a map.
        auroc: In [0, 1].
        difference: AUROC minus the black box's.
        low: Lower bound of the one-sided 97.5 % interval of the difference.
        not_inferior: Whether it lies above minus the margin.
        receptive_field: Radius in pixels around a cell that holds half of the energy of its gradient.
        context_swap: Share by which a cell's evidence changes if all that is further away is replaced, 0 is local.
        near_zero_share: Share of cells that are near zero.
        localization: Means over images with ground truth, by metric; empty where there is none.
        shares: For several class evidence layers, the share of the decision that each carries, from fine to coarse.
        seconds: Training time.
    """

    place: str
    modules: tuple[str, ...]
    map_stride: tuple[int, ...]
    grid: tuple[int, ...]
    auroc: float
    difference: float
    low: float
    not_inferior: bool
    receptive_field: float
    context_swap: float
    near_zero_share: float
    localization: dict[str, float] = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class SweepResult:
    """All places, and the one that the rule chooses.

    Args:
        rows: One per place, in the order asked for.
        black_box: AUROC of the twin.
        margin: Loss of AUROC that was accepted beforehand.
        images: Validation images.
        located: Of them, those on which receptive fields were measured.
        provenance: Recipe, versions, data and seed.
    """

    rows: tuple[PlaceRow, ...]
    black_box: float
    margin: float
    images: int
    located: int
    provenance: dict[str, Any]

    @property
    def chosen(self) -> PlaceRow | None:
        """The most local place that is not inferior to the black box, if there is one."""
        fitting = [row for row in self.rows if row.not_inferior]
        return min(fitting, key=lambda row: row.receptive_field, default=None)

    def __str__(self) -> str:
        if self.chosen is None:
            best = max(self.rows, key=lambda row: row.low)
            return (
                f"No place is shown to be not inferior to the black box (AUROC {self.black_box:.4f}, margin "
                f"{self.margin:g}). The closest is {best.place}: {best.difference:+.4f}, lower bound {best.low:+.4f}. "
                "Train longer, train more of the network, or learn from the black box (`loss.teacher`)."
            )
        row = self.chosen
        return (
            f"{row.place}: the most local place that is not inferior to the black box (AUROC {row.auroc:.4f} against "
            f"{self.black_box:.4f}, lower bound {row.low:+.4f}, margin {self.margin:g}). Half of what a cell depends "
            f"on lies within {row.receptive_field:.0f} px."
        )

    def table(self) -> pd.DataFrame:
        """Return one row per place."""
        columns = [
            {
                **{key: value for key, value in asdict(row).items() if key not in ("localization", "shares")},
                "modules": " ".join(row.modules),
                "map_stride": "x".join(map(str, row.map_stride)),
                "grid": "x".join(map(str, row.grid)),
                **row.localization,
                "shares": " ".join(f"{share:.3f}" for share in row.shares),
            }
            for row in self.rows
        ]
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; NaN becomes None."""
        values = {
            "chosen": None if self.chosen is None else self.chosen.place,
            "rule": "the smallest receptive field among places whose AUROC is not inferior to the black box's",
            "black_box_auroc": self.black_box,
            "margin": self.margin,
            "images": self.images,
            "located": self.located,
            "rows": [asdict(row) for row in self.rows],
            "provenance": self.provenance,
        }
        return plain(values)  # type: ignore[no-any-return]
