"""The end of the pipeline: threads write the files of a batch, then its rows are noted; the model does not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from softcam.files import StagedFile, flush_folder, publish
from softcam.predict import Outcome
from softcam.reporting.inputs import Entry
from softcam.reporting.journal import Journal, Row

AHEAD = 2
"""Batches whose files are being written while the next one is computed."""

_UNNOTED = 16
"""Batches, written or not, whose rows have yet to be noted."""

_THREADS = 2

Write = Callable[[Entry, Outcome, float | None], Sequence[StagedFile]]


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


@dataclass(frozen=True, eq=False)
class _Job:
    """A batch under way, without its images."""

    rows: Sequence[Row]
    limit: float | None
    files: Sequence[Future[Sequence[StagedFile]]]
    noted: Future[int] = field(default_factory=Future)

    @property
    def written(self) -> bool:
        return all(file.done() for file in self.files)

    def wait(self) -> None:
        for file in self.files:
            with suppress(CancelledError):  # `concurrent.futures.wait` would not hear of it
                file.exception()

    @property
    def good(self) -> bool:
        return all(map(_succeeded, self.files))

    def staged(self) -> list[StagedFile]:
        return [staged for file in self.files for staged in file.result()]

    def discard(self) -> None:
        for staged in (staged for file in self.files if _succeeded(file) for staged in file.result()):
            staged.discard()


class Finisher:
    """Write the files of batches, then their rows, in order and in bounded memory: a row says that its files are there.

    Waiting for the disk takes milliseconds on one machine and a tenth of a second on another, whatever the number of
    files; so all batches that are written by then are flushed and noted together. Use it in a `with` statement: what
    was submitted is done at its end. After an error, nothing more is noted.

    Args:
        journal: Where rows go; nobody else may write there meanwhile.
        write: Writes the files of one image and returns them without their names; called in threads.
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
        self._under_way: deque[_Job] = deque()
        self._unnoted: deque[_Job] = deque()
        self._failed = False

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
            for job in self._under_way:
                job.discard()

    def submit(self, batch: Batch) -> None:
        """Take a batch; waits while too many are under way.

        Args:
            batch: The next one.

        Raises:
            OSError: If files of an earlier one could not be written.
        """
        self._make_room()
        files = [self._writers.submit(self._write, *pair, batch.limit) for pair in batch.good]
        job = _Job(batch.rows, batch.limit, files)
        self._under_way.append(job)
        self._unnoted.append(job)
        self._clerk.submit(self._note)

    def _make_room(self) -> None:
        while self._under_way and (len(self._under_way) >= _UNNOTED or self._under_way[0].noted.done()):
            self._settle()
        unwritten = [job for job in self._under_way if not job.written]
        if len(unwritten) >= AHEAD:
            unwritten[-AHEAD].wait()

    def _settle(self) -> None:
        self._tell(self._under_way[0].noted.result())
        self._under_way.popleft()

    def _note(self) -> None:
        """Note all batches whose files are written; called in the clerk's thread, once for each batch."""
        if not (jobs := self._take()):
            return
        try:
            staged = [one for job in jobs for one in job.staged()]
            publish(staged)
            for folder in _folders([one.path for one in staged], self._out):
                flush_folder(folder)
            self._journal.append([(job.rows, job.limit) for job in jobs])
        except BaseException as error:  # noqa: BLE001 - it is raised where the batch is asked for
            self._failed = True
            for job in jobs:
                job.noted.set_exception(error)
        else:
            for job in jobs:
                job.noted.set_result(len(job.rows))

    def _take(self) -> list[_Job]:
        """Return the next batch and those after it that are written; rows never follow ones that are missing."""
        if self._failed or not self._unnoted:
            return []
        jobs = [self._unnoted.popleft()]
        jobs[0].wait()
        while jobs[0].good and self._unnoted and self._unnoted[0].good:
            jobs.append(self._unnoted.popleft())
        return jobs


def _succeeded(file: Future[Sequence[StagedFile]]) -> bool:
    return file.done() and not file.cancelled() and file.exception() is None


def _folders(paths: Iterable[Path], out: Path) -> set[Path]:
    """Return the folders of some files, up to that of all results."""
    return {parent for path in paths for parent in path.parents if parent.is_relative_to(out)}
