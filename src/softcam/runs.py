"""The folder of a run's results: one process at a time, one run for good, and tables that are safe to open."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from softcam.errors import RunError

if sys.platform != "win32":
    import fcntl

RECORD = "run.json"
"""What a finished run says of itself, written last."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def lock(stream: IO[bytes], folder: Path) -> None:
    """Keep a folder for this process alone, for as long as a file in it stays open.

    Args:
        stream: The file.
        folder: Where, for the message.

    Raises:
        RunError: If another process has it open.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"Expected {folder} to be free, but another run is writing there.") from error


@contextmanager
def awaited(path: Path) -> Iterator[None]:
    """Let other processes wait until the body went through, for work that has to be done once.

    Args:
        path: File of the lock, in a folder that exists. It goes once the work is done: who waited finds it done.
    """
    with path.open("ab") as stream:
        if sys.platform != "win32":
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


@contextmanager
def hold(folder: Path, name: str) -> Iterator[None]:
    """Keep a folder for this process alone.

    Args:
        folder: The folder; it is made if needed.
        name: File of the lock in it, which is there meanwhile.

    Raises:
        RunError: If another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with path.open("ab") as stream:
        lock(stream, folder)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def check_same_run(recorded: Mapping[str, Any], identity: Mapping[str, Any], folder: Path) -> None:
    """Refuse to mix two runs in one folder.

    Args:
        recorded: The identity found.
        identity: The identity wanted; only its keys are compared.
        folder: Where, for the message.

    Raises:
        RunError: If they differ, naming what differs.
    """
    different = [key for key, value in identity.items() if recorded.get(key) != value]
    if different:
        raise RunError(
            f"Expected {folder} to be new or to hold the same run, but its {', '.join(different)} differ. "
            "Choose another folder, or remove this one."
        )


def read_counts(folder: Path, identity: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts that the record of a finished run holds.

    Args:
        folder: Of the results.
        identity: All that decides them.

    Raises:
        RunError: If the record is that of another run, or cannot be read.
    """
    try:
        record = json.loads((folder / RECORD).read_bytes())
        counts: dict[str, int] = record["counts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"Expected {RECORD} in {folder} to be the record of a run, but it cannot be read.") from error
    check_same_run(record, identity, folder)
    return counts


def as_text(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula.

    Example:
        >>> as_text("=1+1"), as_text("a.png")
        ("'=1+1", 'a.png')
    """
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
