"""The tables of `explain`: one row per input, and the inputs that failed with their reasons."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from softcam.files import atomic_path
from softcam.predict import Prediction, Predictor
from softcam.reporting.inputs import Entry
from softcam.reporting.journal import Row
from softcam.runs import as_text


@dataclass(frozen=True)
class Columns:
    """What the table says of each image, beside its name, its status and why it failed.

    Args:
        classes: Names in the order of probabilities and logits.
        sets: Whether predictions have sets of classes.
        warnings: Whether they can have warnings.
        members: Whether they come from an ensemble, whose members may disagree.
    """

    classes: tuple[str, ...]
    sets: bool = False
    warnings: bool = False
    members: bool = False

    @classmethod
    def of(cls, predictor: Predictor) -> Columns:
        """Return the columns of a model's predictions."""
        sets, warnings = predictor.uncertainty.has_sets, predictor.checker.is_active
        return cls(predictor.classes, sets=sets, warnings=warnings, members=predictor.members > 1)

    @property
    def names(self) -> list[str]:
        """Headers: the class, numbers, and further texts."""
        numbers = [f"{kind}_{name}" for kind in ("prob", "logit") for name in self.classes]
        spread = [*(f"std_{name}" for name in self.classes), "std_margin"] if self.members else []
        return ["predicted", *numbers, "sum_error", *spread, *self._texts]

    def list_cells(self, prediction: Prediction) -> tuple[str, ...]:
        """Return the texts of one prediction."""
        # Nine digits give back every float32; Python's own numbers are formatted in half the time of numpy's.
        values = (*prediction.probabilities.tolist(), *prediction.logits.tolist())
        numbers = [f"{value:.9g}" for value in values]
        texts = [";".join(getattr(prediction, name) or ()) for name in self._texts]
        spread = list[float]()
        if self.members and prediction.members is not None:
            margin, _ = prediction.members.deviate_margin(*prediction.contrast)
            spread = [*prediction.members.deviate_logits().tolist(), margin]
        told = [f"{value:.6g}" for value in spread]
        return (prediction.predicted or "", *numbers, f"{prediction.sum_error:.3g}", *told, *texts)

    def as_text(self, cells: Sequence[str]) -> list[str]:
        """Return cells as they may stand in a file: no spreadsheet runs one of its texts."""
        last = len(cells) - len(self._texts)
        return [as_text(cells[0]), *cells[1:last], *map(as_text, cells[last:])]

    @property
    def _texts(self) -> list[str]:
        return ["prediction_set"] * self.sets + ["warnings"] * self.warnings


def make_row(entry: Entry, prediction: Prediction | None, seen: dict[str, str], columns: Columns) -> Row:
    """Return the row of an image, and note its digest.

    Args:
        entry: The image.
        prediction: What was predicted; None if the image was refused.
        seen: The first image with each digest; the second one with the same fails as its duplicate.
        columns: What is said of it.
    """
    empty = ("",) * len(columns.names)
    if prediction is None:
        return Row(entry.id, "failed", empty, entry.refusal)
    if prediction.status == "failed":
        return Row(entry.id, "failed", empty, prediction.reason, prediction.digest)
    digest = prediction.digest if entry.frame is None else f"{prediction.digest}#{entry.frame}"
    if first := seen.get(digest):
        return Row(entry.id, "failed", empty, f"duplicate of {first}", digest)
    seen[digest] = entry.id
    return Row(entry.id, "ok", columns.list_cells(prediction), digest=digest)


def write_tables(out: Path, rows: Iterable[Row], columns: Columns) -> dict[str, int]:
    """Write `predictions.csv` and `failures.csv` row by row, and return the counts; `warned` where there are warnings.

    Args:
        out: Their folder.
        rows: In the order of the inputs.
        columns: What is said of each image.
    """
    counts = {"inputs": 0, "done": 0, "failed": 0, **({"warned": 0} if columns.warnings else {})}
    with (
        atomic_path(out / "predictions.csv") as table,
        atomic_path(out / "failures.csv") as failures,
        table.open("w", encoding="utf-8", newline="") as all_rows,
        failures.open("w", encoding="utf-8", newline="") as bad_rows,
    ):
        writer, bad_writer = (csv.writer(stream, lineterminator="\n") for stream in (all_rows, bad_rows))
        writer.writerow(["image", "status", *columns.names, "error"])
        bad_writer.writerow(["image", "reason"])
        for row in rows:
            image, error = as_text(row.id), as_text(row.error)
            writer.writerow([image, row.status, *columns.as_text(row.cells), error])
            counts["inputs"] += 1
            counts["done" if row.status == "ok" else "failed"] += 1
            if columns.warnings and row.cells[-1]:
                counts["warned"] += 1
            if row.status == "failed":
                bad_writer.writerow([image, error])
    return counts
