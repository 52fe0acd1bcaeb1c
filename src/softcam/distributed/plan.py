"""Which inputs a run has and how they fall into shards, in a file that every worker reads its part of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PLAN, STATE = "run.partial.parquet", "run.partial.json"

_GROUP = 4096
_PER_WORKER = 8  # shards, so that the last one of a slow worker is waited for briefly
_MOST_ROWS, _MOST_BYTES = 1024, 64 * 1024 * 1024
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("place", pa.string(), nullable=False),
        pa.field("frame", pa.int32()),
        pa.field("refusal", pa.string(), nullable=False),
        pa.field("stamp", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Listed:
    """One input of a run, in plain values.

    Args:
        id: Its name, unique in the run.
        place: Text with which a worker can open it.
        frame: Which image of a file with several, counted from 1; None for the only one.
        refusal: Why it is not even opened; empty if it is.
        stamp: What changes when the input changes.
    """

    id: str
    place: str
    frame: int | None = None
    refusal: str = ""
    stamp: str = ""


@dataclass(frozen=True)
class Plan:
    """The inputs of a run on disk.

    Args:
        path: The file.
        count: How many inputs there are.
        shard_rows: Inputs of each shard; the last one may have fewer.
    """

    path: Path
    count: int
    shard_rows: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(self.count / self.shard_rows)

    def count_rows(self, shard: int) -> int:
        """Return how many inputs a shard has."""
        return min(self.shard_rows, self.count - shard * self.shard_rows)

    def read(self, shard: int) -> list[Listed]:
        """Return the inputs of a shard, in order; no other part of the file is read.

        Args:
            shard: Its number, from 0.
        """
        start, rows = shard * self.shard_rows, self.count_rows(shard)
        first, last = start // _GROUP, (start + rows - 1) // _GROUP
        with pq.ParquetFile(self.path) as file:
            table = file.read_row_groups(list(range(first, last + 1)))
        return [Listed(**row) for row in table.slice(start - first * _GROUP, rows).to_pylist()]


def write_plan(path: Path, inputs: Iterable[Listed]) -> tuple[int, str]:
    """Write the inputs, and return how many there are and a digest that changes with their ids and stamps.

    Args:
        path: The file.
        inputs: Taken lazily; memory does not grow with their number.
    """
    digest, count = hashlib.sha256(), 0
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for rows in _take(iter(inputs), _GROUP):
            for row in rows:
                digest.update(f"{row.id}\0{row.refusal or row.stamp}\0".encode())
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in rows], _SCHEMA), row_group_size=_GROUP)
            count += len(rows)
    return count, digest.hexdigest()


def choose_shard_rows(count: int, *, workers: int, row_bytes: int, batch_size: int) -> int:
    """Return how many inputs a shard gets: whole batches, some shards for each worker, and what fits into memory.

    Args:
        count: Number of inputs.
        workers: Number of workers.
        row_bytes: Size of one row of results in bytes.
        batch_size: Inputs of a batch.

    Example:
        >>> choose_shard_rows(300, workers=2, row_bytes=400, batch_size=8)
        16
    """
    fair = math.ceil(count / (workers * _PER_WORKER))
    rows = min(fair, _MOST_ROWS, max(1, _MOST_BYTES // max(1, row_bytes)))
    return max(batch_size, rows // batch_size * batch_size)


def _take(rows: Iterator[Listed], size: int) -> Iterator[list[Listed]]:
    while group := list(islice(rows, size)):
        yield group
