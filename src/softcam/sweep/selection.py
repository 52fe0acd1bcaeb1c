"""What a search found, and what its rule chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from softcam.metrics.glossary import measure
from softcam.runs import plain
from softcam.sweep.places import name_place
from softcam.sweep.space import Point
from softcam.sweep.trial import Failure
from softcam.training import Recipe


@dataclass(frozen=True)
class TrialRow:
    """A model of a search on validation images.

    Args:
        point: What it is.
        map_stride: Input pixels from one cell to the next.
        grid: Cells of a map.
        auroc: In [0, 1].
        difference: AUROC minus that of the reference.
        low: Lower bound of the one-sided 97.5 % interval of the difference.
        not_inferior: Whether it lies above minus the margin.
        values: Means by metric: sparsity, size of the evidence, deletion, and localisation where there is ground truth.
        seconds: Training time.
        model_path: The bundle.
    """

    point: Point
    map_stride: tuple[int, ...]
    grid: tuple[int, ...]
    auroc: float
    difference: float
    low: float
    not_inferior: bool
    values: Mapping[str, float]
    seconds: float
    model_path: Path


@dataclass(frozen=True)
class SearchResult:
    """All models of a search, and the one that the rule chooses.

    Args:
        rows: One per model, in the order in which they were tried.
        reference: The dense model that the others are compared with: of those, the one with the highest AUROC.
        margin: Loss of AUROC that was accepted beforehand.
        sparsity: Name of the metric that says how sparse maps are.
        images: Validation images.
        located: Of them, those on which maps were measured.
        failures: Models that could not be trained.
        recipe: How the chosen model is trained; None where nothing could be chosen.
        provenance: Recipe, versions, data and seeds.
    """

    rows: tuple[TrialRow, ...]
    reference: TrialRow
    margin: float
    sparsity: str
    images: int
    located: int
    failures: tuple[Failure, ...]
    recipe: Recipe | None
    provenance: dict[str, Any]

    @property
    def rule(self) -> str:
        """How the choice is made, in words."""
        return (
            f"the highest {self.sparsity} among models whose AUROC is not inferior to that of the best dense model "
            f"(lower bound of the one-sided 97.5 % interval of the paired difference above -{self.margin:g}); of equal "
            "ones the one with the higher AUROC"
        )

    @property
    def chosen(self) -> TrialRow | None:
        """What the rule chooses; None only where the AUROC is undefined."""
        return choose(self.rows, self.sparsity)

    @property
    def front(self) -> tuple[TrialRow, ...]:
        """The rows that none beats in AUROC or sparsity without being behind in the other, from dense to sparse."""
        known = [row for row in self.rows if not math.isnan(row.auroc + row.values[self.sparsity])]
        rows = sorted(known, key=lambda row: (row.values[self.sparsity], row.auroc))
        return tuple(row for row in rows if not any(_dominates(other, row, self.sparsity) for other in rows))

    def title(self, row: TrialRow) -> str:
        """Return a short name of a row: what differs within the search."""
        parts = [f"l1 {row.point.l1:g}"]
        points = [other.point for other in self.rows]
        if any(point.l2 for point in points):
            parts.append(f"l2 {row.point.l2:g}")
        return ", ".join((*parts, *self.describe_form(row)))

    def describe_form(self, row: TrialRow) -> tuple[str, ...]:
        """Return what differs within the search beside the strengths."""
        at, map_stride, backbone = row.point.form
        texts = (name_place(at), f"map stride {map_stride or 'own'}", backbone)
        known = zip(*(other.point.form for other in self.rows), strict=True)
        return tuple(text for text, values in zip(texts, known, strict=True) if len(set(values)) > 1)

    def __str__(self) -> str:
        row, dense, what = self.chosen, self.reference, measure(self.sparsity).title.lower()
        if row is None:
            return "Nothing can be chosen: the AUROC is undefined. Look at the labels of the val split."
        before, after = dense.values[self.sparsity], row.values[self.sparsity]
        if row.point == dense.point:
            return (
                f"{self.title(row)}: of the models whose AUROC is not inferior to its own ({row.auroc:.4f}, margin "
                f"{self.margin:g}) none has sparser maps ({what} {after:.3f}). Stay without penalty."
            )
        return (
            f"{self.title(row)}: the sparsest maps ({what} {after:.3f}, dense {before:.3f}) at an AUROC that is not "
            f"inferior to the dense model's ({row.auroc:.4f} against {dense.auroc:.4f}, lower bound {row.low:+.4f}, "
            f"margin {self.margin:g})."
        )

    def table(self) -> pd.DataFrame:
        """Return one row per model, in the order in which they were tried."""
        front, chosen = self.front, self.chosen
        rows = [
            {
                "l1": row.point.l1,
                "l2": row.point.l2,
                "at": name_place(row.point.form.at),
                "map_stride": "x".join(map(str, row.map_stride)),
                "grid": "x".join(map(str, row.grid)),
                "backbone": row.point.form.backbone,
                "auroc": row.auroc,
                "difference": row.difference,
                "low": row.low,
                "not_inferior": row.not_inferior,
                **row.values,
                "on_front": row in front,
                "chosen": row is chosen,
                "seconds": row.seconds,
            }
            for row in self.rows
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; NaN becomes None."""
        chosen = self.chosen
        values = {
            "chosen": None if chosen is None else chosen.point.name,
            "rule": self.rule,
            "reference": self.reference.point.name,
            "margin": self.margin,
            "sparsity": self.sparsity,
            "images": self.images,
            "located": self.located,
            "front": [row.point.name for row in self.front],
            "rows": [
                {
                    "name": row.point.name,
                    **asdict(row),
                    "values": dict(row.values),
                    "model_path": f"trials/{row.point.name}/{row.model_path.name}",
                }
                for row in self.rows
            ],
            "failures": [{"name": item.point.name, "reason": item.reason} for item in self.failures],
            "provenance": self.provenance,
        }
        return plain(values)  # type: ignore[no-any-return]


def choose(rows: Sequence[TrialRow], sparsity: str) -> TrialRow | None:
    """Return the sparsest row that is not inferior, of equal ones the one with the higher AUROC; None if none is.

    Args:
        rows: Compared with the reference.
        sparsity: Name of the metric.
    """
    fitting = [row for row in rows if row.not_inferior and not math.isnan(row.values[sparsity])]
    return max(fitting, key=lambda row: (row.values[sparsity], row.auroc), default=None)


def _dominates(one: TrialRow, other: TrialRow, sparsity: str) -> bool:
    ours, theirs = (one.auroc, one.values[sparsity]), (other.auroc, other.values[sparsity])
    return all(a >= b for a, b in zip(ours, theirs, strict=True)) and ours != theirs
