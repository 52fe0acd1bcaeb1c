"""The folder of a run's results: one process at a time, one run for good, tables that are safe to open, plain JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from softcam.errors import RunError
from softcam.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

if sys.platform != "win32":
    import fcntl

RECORD = "run.json"
"""What a finished run says of itself, written last."""

LOCK = "run.partial.lock"
"""The file by which a process keeps a folder, with who that is."""

_OWNER = "process "
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def hold(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Keep a folder of results for this process alone, and say in one clear line when its disk is full.

    Args:
        folder: The folder; it is made if needed.
        name: File of the lock in it, which is there meanwhile.

    Raises:
        RunError: If another process writes there, naming it; if the folder cannot be written, or its disk is full.
    """
    with say_what_the_disk_lacks(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = _open_lock(folder / name)
    try:
        with say_what_the_disk_lacks(folder, room=True):
            yield
    finally:
        (folder / name).unlink(missing_ok=True)
        stream.close()


def _open_lock(path: Path) -> IO[bytes]:
    while True:
        stream = path.open("a+b")
        try:
            lock(stream, path.parent)
            # Whoever had it may have removed it on leaving, after it was opened here.
            if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                stream.truncate(0)
                since = datetime.now(UTC).isoformat(timespec="seconds")
                stream.write(f"{_OWNER}{os.getpid()} on {platform.node()}, since {since}".encode())
                stream.flush()
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def lock(stream: IO[bytes], folder: Path) -> None:
    """Keep a folder for this process alone, for as long as a file in it stays open.

    Args:
        stream: The file, of which the message quotes what `hold` writes there.
        folder: Where, for the message.

    Raises:
        RunError: If another process has it open.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"Expected {folder} to be free, but {_read_owner(stream)} is writing there. "
                "Wait for its end, or choose another folder."
            ) from error


def _read_owner(stream: IO[bytes]) -> str:
    stream.seek(0)
    found = stream.read(200).decode(errors="replace") if stream.readable() else ""
    return found if found.startswith(_OWNER) else "another run"


@contextmanager
def say_what_the_disk_lacks(out: Path, *, room: bool = False) -> Iterator[None]:
    """Turn what the system says about a folder of results into one clear line.

    Args:
        out: The folder.
        room: Whether only a full disk is said like that; other errors may be those of the inputs.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            found, remedy = "the disk is full", "Free some space"
        elif room:
            raise
        else:
            found, remedy = (error.strerror or type(error).__name__).lower(), "Allow it, or choose another folder"
        # Names of files may be those of patients.
        raise RunError(
            f"Expected {out} to take the results, but {found}. {remedy}; the same command continues."
        ) from error


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


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole, with the same line ends everywhere; its index is left out.

    Args:
        path: The file.
        table: Texts in it that come from elsewhere have gone through `as_text`.
    """
    write_atomic(path, table.to_csv(index=False, lineterminator="\n"))


def plain(value: Any) -> Any:
    """Return nested containers and numbers as JSON knows them, NaN and infinity as None.

    Raises:
        TypeError: If a value has no place in JSON.

    Example:
        >>> plain({"a": (np.float64(1.5), float("nan"))})
        {'a': [1.5, None]}
    """
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"Expected JSON values, but got {type(value).__name__}.")
