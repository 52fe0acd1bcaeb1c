"""The tables of `explain`: one row per input, and the inputs that failed with their reasons."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from softcam.files import atomic_path
from softcam.predict import Prediction
from softcam.reporting.inputs import Entry
from softcam.reporting.journal import Row
from softcam.runs import as_text


def make_row(entry: Entry, prediction: Prediction | None, seen: dict[str, str], classes: int) -> Row:
    """Return the row of an image, and note its digest.

    Args:
        entry: The image.
        prediction: What was predicted; None if the image was refused.
        seen: The first image with each digest; the second one with the same fails as its duplicate.
        classes: Number of classes.
    """
    empty = ("",) * (2 + 2 * classes)
    if prediction is None:
        return Row(entry.id, "failed", empty, entry.refusal)
    if prediction.status == "failed":
        return Row(entry.id, "failed", empty, prediction.reason, prediction.digest)
    digest = prediction.digest if entry.frame is None else f"{prediction.digest}#{entry.frame}"
    if first := seen.get(digest):
        return Row(entry.id, "failed", empty, f"duplicate of {first}", digest)
    seen[digest] = entry.id
    # Nine digits give back every float32; Python's own numbers are formatted in half the time of numpy's.
    values = (*prediction.probabilities.tolist(), *prediction.logits.tolist())
    numbers = [f"{value:.9g}" for value in values]
    cells = (prediction.predicted or "", *numbers, f"{prediction.sum_error:.3g}")
    return Row(entry.id, "ok", cells, digest=digest)


def write_tables(out: Path, rows: Iterable[Row], classes: Sequence[str]) -> dict[str, int]:
    """Write `predictions.csv` and `failures.csv` row by row, and return the counts.

    Args:
        out: Their folder.
        rows: In the order of the inputs.
        classes: Names in the order of the columns.
    """
    counts = {"inputs": 0, "done": 0, "failed": 0}
    columns = [f"{kind}_{name}" for kind in ("prob", "logit") for name in classes]
    with (
        atomic_path(out / "predictions.csv") as table,
        atomic_path(out / "failures.csv") as failures,
        table.open("w", encoding="utf-8", newline="") as all_rows,
        failures.open("w", encoding="utf-8", newline="") as bad_rows,
    ):
        writer, bad_writer = (csv.writer(stream, lineterminator="\n") for stream in (all_rows, bad_rows))
        writer.writerow(["image", "status", "predicted", *columns, "sum_error", "error"])
        bad_writer.writerow(["image", "reason"])
        for row in rows:
            image, error = as_text(row.id), as_text(row.error)
            writer.writerow([image, row.status, as_text(row.cells[0]), *row.cells[1:], error])
            counts["inputs"] += 1
            counts["done" if row.status == "ok" else "failed"] += 1
            if row.status == "failed":
                bad_writer.writerow([image, error])
    return counts
