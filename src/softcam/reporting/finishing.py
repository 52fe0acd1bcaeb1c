"""The end of the pipeline: threads write the files of a batch, then its rows are noted; the model does not wait."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from softcam.errors import RunError
from softcam.files import flush_folder
from softcam.predict import Outcome
from softcam.reporting.inputs import Entry
from softcam.reporting.journal import Journal, Row

AHEAD = 2
"""Batches whose files are being written while the next one is computed."""

_THREADS = 2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

Write = Callable[[Entry, Outcome, float | None], Sequence[Path]]


@dataclass(frozen=True)
class Batch:
    """What is left to do for a batch.

    Args:
        rows: Of all its images, in the order of the inputs.
        good: Those with files to write.
        limit: Logits per cell that get the full colour on overlays, if that was chosen.
    """

    rows: Sequence[Row]
    good: Sequence[tuple[Entry, Outcome]]
    limit: float | None


class Finisher:
    """Write the files of batches, then their rows, in order and in bounded memory: a row says that its files are there.

    Use it in a `with` statement: what was submitted is done at its end. After an error, nothing more is noted.

    Args:
        journal: Where rows go; nobody else may write there meanwhile.
        write: Writes the files of one image and returns their paths; called in threads.
        out: The folder of all results.
        tell: Called with the number of rows each time that a batch has been noted.
    """

    def __init__(self, journal: Journal, write: Write, *, out: Path, tell: Callable[[int], None]) -> None:
        self._journal = journal
        self._write = write
        self._out = out
        self._tell = tell
        self._writers = ThreadPoolExecutor(_THREADS, thread_name_prefix="softcam-write")
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="softcam-journal")
        self._under_way: deque[Future[int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._under_way:
                self._settle()
        finally:
            # The clerk waits for the writers, so theirs is cancelled first.
            self._writers.shutdown(wait=True, cancel_futures=True)
            self._clerk.shutdown(wait=True, cancel_futures=True)

    def submit(self, batch: Batch) -> None:
        """Take a batch; waits while too many are under way.

        Args:
            batch: The next one.

        Raises:
            OSError: If files of an earlier one could not be written.
        """
        while len(self._under_way) >= AHEAD or (self._under_way and self._under_way[0].done()):
            self._settle()
        files = [self._writers.submit(self._write, *pair, batch.limit) for pair in batch.good]
        before = self._under_way[-1] if self._under_way else None
        self._under_way.append(self._clerk.submit(self._note, batch, files, before))

    def _settle(self) -> None:
        self._tell(self._under_way.popleft().result())

    def _note(self, batch: Batch, files: Sequence[Future[Sequence[Path]]], before: Future[int] | None) -> int:
        """Wait for the files of a batch and note its rows; called in the clerk's thread, one after the other."""
        if before is not None:
            before.result()  # rows never follow ones that are missing
        for folder in _folders([path for file in files for path in file.result()], self._out):
            flush_folder(folder)
        self._journal.append(batch.rows, overlay_limit=batch.limit)
        return len(batch.rows)


@contextmanager
def say_what_the_disk_lacks(out: Path) -> Iterator[None]:
    """Turn what the system says about a folder of results into one clear line.

    Args:
        out: The folder.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            found, remedy = "the disk is full", "Free some space"
        else:
            found, remedy = (error.strerror or type(error).__name__).lower(), "Allow it, or choose another folder"
        # Names of files may be those of patients.
        raise RunError(
            f"Expected {out} to take the results, but {found}. {remedy}; the same command continues."
        ) from error


def _folders(paths: Iterable[Path], out: Path) -> set[Path]:
    """Return the folders of some files, up to that of all results."""
    return {parent for path in paths for parent in path.parents if parent.is_relative_to(out)}
