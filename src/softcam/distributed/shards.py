"""The Parquet files of results: one per shard, whole or not there, under a name that its number decides."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from softcam.distributed.settings import Evidence
from softcam.errors import RunError
from softcam.files import atomic_path
from softcam.predict import Prediction

TABLE = "predictions.parquet"

_NAME = re.compile(r"part-(\d{6,})\.parquet")
_TEMPORARY = re.compile(r"\.part-\d+\.[0-9a-f]{8}\.partial\.parquet")


@dataclass(frozen=True)
class Layout:
    """What every file of a run has in common.

    Args:
        classes: Names in the order of probabilities, logits and maps.
        grid: Height and width of a map in cells.
        evidence: Type in which maps are stored, or "none".
        fingerprint: SHA-256 of the model's tensors.
        temperature: What logits are divided by for probabilities; None for a model that was not calibrated.
        sets: Whether predictions have sets of classes.
        warnings: Whether they can have warnings.
        members: Whether they come from an ensemble, whose members may disagree.
    """

    classes: tuple[str, ...]
    grid: tuple[int, int]
    evidence: Evidence
    fingerprint: str
    temperature: float | None = None
    sets: bool = False
    warnings: bool = False
    members: bool = False

    @property
    def cells(self) -> int:
        """Numbers of one image's evidence."""
        return len(self.classes) * self.grid[0] * self.grid[1]

    @property
    def row_bytes(self) -> int:
        """About how many bytes a row takes."""
        size = {"float32": 4, "float16": 2, "none": 0}[self.evidence]
        return self.cells * size + 8 * len(self.classes) + 512

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types; the classes are in the metadata under `softcam`.

        Lists are never null, but hold NaN where there is nothing: several readers of Parquet, pyarrow before 26 among
        them, fail on a null among lists of fixed size.
        """
        scores = pa.list_(pa.float32(), len(self.classes))
        columns = {"id": pa.string(), "status": pa.string(), "reason": pa.string(), "predicted": pa.string()}
        columns |= {"probabilities": scores, "logits": scores}
        if self.evidence != "none":
            number = pa.float32() if self.evidence == "float32" else pa.float16()
            columns |= {"evidence": pa.list_(number, self.cells)}
        columns |= {"h": pa.int32(), "w": pa.int32(), "sum_error": pa.float64(), "geometry": pa.string()}
        columns |= {"spacing": pa.list_(pa.float64(), 2), "digest": pa.string()}
        columns |= {"std": scores, "std_margin": pa.float32()} if self.members else {}
        columns |= {"prediction_set": pa.string()} if self.sets else {}
        columns |= {"warnings": pa.string()} if self.warnings else {}
        always = {"id", "status", "reason", "digest", "probabilities", "logits", "evidence", "spacing", "std"}
        about = {"classes": list(self.classes), "grid": list(self.grid), "fingerprint": self.fingerprint}
        fields = [pa.field(name, kind, nullable=name not in always) for name, kind in columns.items()]
        return pa.schema(fields, {"softcam": json.dumps(about)})


def name_shard(out: Path, shard: int) -> Path:
    """Return where the results of a shard are."""
    return out / TABLE / f"part-{shard:06d}.parquet"


def list_done(out: Path) -> set[int]:
    """Return the numbers of the shards whose results are there."""
    folder = out / TABLE
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return {int(found[1]) for found in names if found}


def remove_leftovers(out: Path) -> None:
    """Remove the temporary files of workers that died."""
    for path in (out / TABLE).glob(".part-*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_shard(path: Path, rows: Sequence[Prediction], layout: Layout) -> None:
    """Write the results of a shard, all at once.

    Args:
        path: The file.
        rows: In the order of the inputs.
        layout: What they have in common.

    Raises:
        RunError: If a map is not of the layout's size, or too large for float16.
        OSError: If they cannot be written.
    """
    write_table(path, _make_table(rows, layout))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table under its final name once it is whole."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", use_dictionary=["status", "predicted", "reason"])


def fail_duplicate(table: pa.Table, row: int, first: str) -> pa.Table:
    """Return the table with one row failed as the duplicate of another input.

    Args:
        table: The results of a shard.
        row: Which row.
        first: Id of the input with the same bytes.
    """
    kept = {"id": table["id"][row].as_py(), "digest": table["digest"][row].as_py()}
    failed = kept | {"status": "failed", "reason": f"duplicate of {first}"}
    failed |= {
        field.name: [np.nan] * field.type.list_size for field in table.schema if pa.types.is_fixed_size_list(field.type)
    }
    middle = pa.Table.from_pylist([failed], table.schema)
    return pa.concat_tables([table.slice(0, row), middle, table.slice(row + 1)]).combine_chunks()


def mark_frame(prediction: Prediction, frame: int | None) -> Prediction:
    """Return the prediction with a digest that tells frames of the same file apart."""
    if frame is None or prediction.status == "failed":
        return prediction
    return replace(prediction, digest=f"{prediction.digest}#{frame}")


def _make_table(rows: Sequence[Prediction], layout: Layout) -> pa.Table:
    _check_grid(rows, layout)
    columns: dict[str, Any] = {
        "id": [row.id for row in rows],
        "status": [row.status for row in rows],
        "reason": [row.reason for row in rows],
        "predicted": [None if row.status == "failed" else row.predicted for row in rows],
        "probabilities": _stack(_known(rows, "probabilities"), len(layout.classes), np.float32),
        "logits": _stack(_known(rows, "logits"), len(layout.classes), np.float32),
        "h": [None if row.status == "failed" else layout.grid[0] for row in rows],
        "w": [None if row.status == "failed" else layout.grid[1] for row in rows],
        "sum_error": [None if row.status == "failed" else row.sum_error for row in rows],
        "geometry": [row.geometry.to_json() if row.geometry else None for row in rows],
        "spacing": _stack((row.spacing for row in rows), 2, np.float64),
        "digest": [row.digest for row in rows],
    }
    if layout.members:
        spread = [None if row.members is None else row.members.deviate_logits() for row in rows]
        columns["std"] = _stack(spread, len(layout.classes), np.float32)
        columns["std_margin"] = [_deviate_margin(row) for row in rows]
    if layout.sets:
        columns["prediction_set"] = [None if (found := row.prediction_set) is None else ";".join(found) for row in rows]
    if layout.warnings:
        columns["warnings"] = [None if row.status == "failed" else ";".join(row.warnings) for row in rows]
    if layout.evidence != "none":
        columns["evidence"] = _stack(_known(rows, "maps"), layout.cells, np.dtype(layout.evidence).type)
    return pa.Table.from_pydict({name: columns[name] for name in layout.schema.names}, layout.schema)


def _deviate_margin(row: Prediction) -> float | None:
    return None if row.members is None else row.members.deviate_margin(*row.contrast)[0]


def _known(rows: Sequence[Prediction], name: str) -> list[npt.NDArray[np.float32] | None]:
    return [None if row.status == "failed" else getattr(row, name) for row in rows]


def _stack(arrays: Iterable[npt.ArrayLike | None], size: int, kind: type[np.floating[Any]]) -> pa.Array:
    """Return lists of `size` numbers each, of NaN where there are none."""
    rows = list(arrays)
    values = np.full((len(rows), size), np.nan, kind)
    there = [row is not None for row in rows]
    for target, source in zip(values, rows, strict=True):
        if source is not None:
            with np.errstate(over="ignore"):
                target[:] = np.reshape(source, -1)
    if not np.isfinite(values[there]).all():
        raise RunError("Expected evidence below 65504, but float16 cannot hold it. Use float32.")
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), size)


def _check_grid(rows: Sequence[Prediction], layout: Layout) -> None:
    expected = (len(layout.classes), *layout.grid)
    for row in rows:
        if row.status == "ok" and row.maps.shape != expected:
            raise RunError(f"Expected maps of shape {expected}, but got {row.maps.shape}. Use equal inputs.")
