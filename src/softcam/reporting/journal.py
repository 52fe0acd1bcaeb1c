"""The record of an explanation under way: appended batch by batch, so that a killed run loses at most one batch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from softcam.errors import RunError
from softcam.runs import check_same_run, hold


@dataclass(frozen=True)
class Row:
    """One line of the final table.

    Args:
        id: The image.
        status: `ok` or `failed`.
        cells: Texts between status and error, see `Columns`: predicted, probabilities, logits, sum error and more.
        error: Why it failed; empty if it did not.
        digest: SHA-256 of the file's bytes, with `#` and the number of the frame where it holds several; empty if it
            could not be read.
        facts: What a record will say of it, in JSON values, and when; None where no records are written.
        regions: What the tables of regions will say of it, in JSON values; None where none are written.
    """

    id: str
    status: str
    cells: tuple[str, ...]
    error: str = ""
    digest: str = ""
    facts: dict[str, Any] | None = None
    regions: dict[str, Any] | None = None


class Journal:
    """A JSON-lines file: the run's identity, then one line per batch. A torn last line counts as not written.

    Args:
        path: The file.
        stream: The same file, open for reading and appending.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self.overlay_limit: float | None = None

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all whole batches, in order; nothing may be appended meanwhile.

        Raises:
            RunError: If a line is damaged.
        """
        self._stream.seek(0)
        self._stream.readline()
        for line in self._stream:
            self.overlay_limit, rows = self._parse(line)
            yield from rows

    def append(self, batches: Sequence[tuple[Sequence[Row], float | None]]) -> None:
        """Add batches; once this returns, they survive a kill and a power cut.

        Args:
            batches: Of each the rows, in the order of the inputs, and the colour scale in use, if one was chosen.
        """
        self.overlay_limit = batches[-1][1]
        self._write(*({"overlay_limit": limit, "rows": [vars(row) for row in rows]} for rows, limit in batches))

    def start(self, identity: Mapping[str, Any]) -> None:
        """Check that what is recorded belongs to the same run, or begin a new record.

        Args:
            identity: JSON values that decide the results.

        Raises:
            RunError: If the record belongs to another run or is damaged.
        """
        self._drop_torn_line()
        self._stream.seek(0)
        head = self._stream.readline()
        if not head:
            self._write(dict(identity))
            return
        try:
            recorded = json.loads(head)
        except ValueError as error:
            raise self._damaged() from error
        check_same_run(recorded, identity, self.path.parent)

    def _parse(self, line: bytes) -> tuple[float | None, list[Row]]:
        try:
            record = json.loads(line)
            rows = [Row(**{**values, "cells": tuple(values["cells"])}) for values in record["rows"]]
            return record["overlay_limit"], rows
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged() from error

    def _damaged(self) -> RunError:
        return RunError(f"Expected {self.path} to be the record of a run, but it is damaged. Remove its folder.")

    def _write(self, *records: Mapping[str, Any]) -> None:
        self._stream.seek(0, os.SEEK_END)
        self._stream.write(b"".join(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _drop_torn_line(self) -> None:
        self._stream.seek(0)
        whole = 0
        for line in self._stream:
            whole += len(line) if line.endswith(b"\n") else 0
        self._stream.truncate(whole)


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a run's record for this process alone.

    Args:
        path: The file; it is made if needed.

    Raises:
        RunError: If another process has it open.
    """
    with hold(path.parent), path.open("a+b") as stream:
        yield Journal(path, stream)
