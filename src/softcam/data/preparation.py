"""From a download to a manifest: images are read, converted and written by worker processes, and begun work goes on.

What was done is noted line by line, so that the same command continues; the manifest comes last.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from softcam._version import __version__
from softcam.cores import count_cores
from softcam.data.archives import list_members, read_member
from softcam.data.downloads import Download, Order, PreparationSettings, Row, count_labels, order_columns
from softcam.data.manifest import Manifest, read_manifest, write_manifest
from softcam.errors import ImageError, ManifestError, RunError
from softcam.files import flush_disks, write_atomic, write_whole
from softcam.runs import LOCK, hold
from softcam.versions import installed_versions

JOURNAL = "preparation.jsonl"
RECORD = "data.json"
SKIPPED = "skipped.csv"
CHUNK = 8
"""Images that a worker process is given at a time."""

_CRASHED = "its decoder crashed"


@dataclass(frozen=True)
class Preparation:
    """A download that has become a manifest.

    Args:
        manifest: The images, with `split` and `patient`.
        skipped: Names and reasons of what was left out.
        record: What `data.json` holds.
    """

    manifest: Manifest
    skipped: tuple[tuple[str, str], ...]
    record: Row


@dataclass(frozen=True)
class Job:
    """What worker processes need to know.

    Args:
        download: The data set.
        out: Where files go.
        size: Side of the written images; None leaves them as they are.
    """

    download: Download
    out: Path
    size: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of one order.

    Args:
        stem: Of the order.
        files: Bytes of each written file by its path; the first is the image.
        digest: SHA-256 of the image's bytes.
        facts: What was found in it.
        reason: Why nothing was written; empty if something was.
    """

    stem: str
    files: dict[str, int]
    digest: str
    facts: Row
    reason: str = ""


def prepare(
    download: Download,
    source: str | Path,
    out: str | Path,
    settings: PreparationSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Preparation:
    """Write the images of a download, `skipped.csv` (if any), `data.json` and, last, `manifest.csv`.

    The same call continues interrupted work, and with other labels or splits rewrites the tables alone.

    Args:
        download: The data set.
        source: Its folder or zip file.
        out: The folder; new, empty, or begun with the same data set and size.
        settings: Default: `PreparationSettings()`.
        progress: Called with the images that are done and those in all.

    Raises:
        ManifestError: If a table is missing or wrong, no image is there, or the folder holds something else.
        MissingExtraError: If images need a library that is not installed.
        RunError: If worker processes cannot be started, another process writes there, or the disk is full.
        ValueError: If there are no such labels.
    """
    work = _Work(download, source, Path(out), settings or PreparationSettings())
    with hold(work.job.out):
        work.run(progress)
        rows = work.collect()
        _write_skipped(work.job.out, work.skipped)
        if not rows:
            raise ManifestError([f"Expected at least one usable image, but none was. See {work.job.out / SKIPPED}."])
        return work.finish(pd.DataFrame(rows))


class _Work:
    """The steps of a preparation."""

    def __init__(self, download: Download, source: str | Path, out: Path, settings: PreparationSettings) -> None:
        self.job = Job(download, out, download.size if settings.size is None else settings.size)
        self.settings = settings
        self.labels = download.choose_labels(settings)
        self.plan = download.plan(list_members(source), settings)
        self.skipped = list(self.plan.skipped)
        self.outcomes = dict[str, Outcome]()

    def run(self, progress: Callable[[int, int], None] | None) -> None:
        """Find the outcome of every order, and note each as it comes."""
        orders, done = self.plan.orders, _open_journal(self.job)
        self.outcomes = {order.stem: done[order.stem] for order in orders if order.stem in done}
        todo = [order for order in orders if order.stem not in self.outcomes]
        with (self.job.out / JOURNAL).open("a", encoding="utf-8") as journal:
            for outcome in _convert(todo, self.job, _count_workers(self.settings)):
                self.outcomes[outcome.stem] = outcome
                if not outcome.reason:
                    journal.write(json.dumps(asdict(outcome)) + "\n")
                    journal.flush()
                if progress is not None:
                    progress(len(self.outcomes), len(orders))

    def collect(self) -> list[Row]:
        """Return the rows of the manifest; what is left out joins the skipped."""
        rows = []
        for order in self.plan.orders:
            outcome = self.outcomes[order.stem]
            if outcome.reason:
                self.skipped.append((order.members[0].name, outcome.reason))
            else:
                row = {"image": next(iter(outcome.files))} | self.job.download.complete(order.row, outcome.facts)
                rows.append(order_columns(row))
        return rows

    def finish(self, table: pd.DataFrame) -> Preparation:
        """Check and write the tables."""
        flush_disks()
        draft = self.job.out / ".manifest.partial.csv"
        try:
            write_manifest(table, draft)
            manifest = read_manifest(draft, classes=self.job.download.labels[self.labels])
        finally:
            draft.unlink(missing_ok=True)
        record = self.describe(manifest)
        write_atomic(self.job.out / RECORD, json.dumps(record, indent=2) + "\n")
        write_manifest(table, self.job.out / "manifest.csv")
        return Preparation(manifest, tuple(self.skipped), record)

    def describe(self, manifest: Manifest) -> Row:
        """Return what `data.json` holds."""
        settings = self.settings
        digests = {next(iter(outcome.files), ""): outcome.digest for outcome in self.outcomes.values()}
        return {
            "source": self.job.download.name,
            "labels": self.labels,
            "classes": list(manifest.classes),
            "arguments": {
                "splits": None if settings.splits is None else settings.splits.name,
                "size": self.job.size,
                "seed": settings.seed,
            },
            "images": len(manifest),
            "patients": len(set(manifest.table["patient"])),
            "skipped": len(self.skipped),
            "counts": count_labels(manifest.table),
            "notes": dict(self.plan.notes),
            "digest": manifest.digest([digests[image] for image in manifest.table["image"]]),
            "versions": {"softcam": __version__, **installed_versions(("pillow", "numpy", "pandas", "pydicom"))},
        }


def _convert(orders: Sequence[Order], job: Job, workers: int) -> Iterator[Outcome]:
    if workers == 1 or len(orders) <= 1:
        yield from (convert_order(order, job) for order in orders)
        return
    chunks = deque(orders[start : start + CHUNK] for start in range(0, len(orders), CHUNK))
    while chunks:
        try:
            for outcomes in _stream(chunks, job, workers):
                chunks.popleft()
                yield from outcomes
        except BrokenProcessPool:
            # A decoder that brings its process down takes what the others had begun with it: that is done one by one.
            suspects = [chunks.popleft() for _ in range(min(_window(workers), len(chunks)))]
            yield from _convert_apart([order for chunk in suspects for order in chunk], job)


def _stream(chunks: Iterable[Sequence[Order]], job: Job, workers: int) -> Iterator[list[Outcome]]:
    """Yield the outcomes of each chunk in turn, with few of them under way so that memory does not grow."""
    with _create_pool(job, workers) as pool:
        waiting = deque[Any]()
        try:
            for chunk in tuple(chunks):
                waiting.append(pool.submit(convert_orders, chunk, job))
                if len(waiting) == _window(workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _convert_apart(orders: Sequence[Order], job: Job) -> Iterator[Outcome]:
    """Yield outcomes one by one from a single worker, which is replaced whenever an image brings it down."""
    waiting = deque(orders)
    while waiting:
        with _create_pool(job, 1) as pool:
            try:
                while waiting:
                    yield pool.submit(convert_order, waiting[0], job).result()
                    waiting.popleft()
            except BrokenProcessPool:
                yield Outcome(waiting.popleft().stem, {}, "", {}, _CRASHED)


def convert_orders(orders: Sequence[Order], job: Job) -> list[Outcome]:
    """Convert a few images in a worker process."""
    return [convert_order(order, job) for order in orders]


def convert_order(order: Order, job: Job) -> Outcome:
    """Read, convert and write one image; a file that is no usable image is named in the outcome.

    Args:
        order: The image.
        job: How it is converted, and where to.
    """
    try:
        contents = [read_member(member) for member in order.members]
        product = job.download.convert(order.stem, contents, job.size)
        job.download.complete(order.row, product.facts)
    except ImageError as error:
        return Outcome(order.stem, {}, "", {}, str(error))
    for name, content in product.files.items():
        write_whole(job.out / name, content)
    image = next(iter(product.files.values()))
    sizes = {name: len(content) for name, content in product.files.items()}
    return Outcome(order.stem, sizes, hashlib.sha256(image).hexdigest(), product.facts)


def _create_pool(job: Job, workers: int) -> ProcessPoolExecutor:
    # Threads of this process, such as those that draw a progress bar, must not be copied into the workers.
    context = multiprocessing.get_context("spawn")
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")  # type: ignore[assignment]
        context.set_forkserver_preload([job.download.convert.__module__])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupt)
    try:
        pool.submit(int).result()
    except BrokenProcessPool:
        pool.shutdown()
        raise RunError(
            "Expected worker processes to start, but they do not: a script has to keep its work below "
            "`if __name__ == '__main__':`, and must be a file. Set `workers` to 1 to do without them."
        ) from None
    return pool


def _ignore_interrupt() -> None:
    # The main process ends the workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _window(workers: int) -> int:
    return 2 * workers + 2


def _count_workers(settings: PreparationSettings) -> int:
    if settings.workers is not None:
        return settings.workers
    return count_cores()


def _open_journal(job: Job) -> dict[str, Outcome]:
    """Begin a journal, or return what an earlier one of the same data set and size has of files that are there."""
    path = job.out / JOURNAL
    claim = json.dumps({"source": job.download.name, "size": job.size, "softcam": __version__})
    if not path.is_file():
        if any(path.name != LOCK for path in job.out.iterdir()):
            raise ManifestError(
                [f"Expected a folder that is new, empty or begun with the same data set, but got {job.out}."]
            )
        outcomes: list[Outcome] = []
    else:
        head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if head != claim:
            raise ManifestError(
                [f"Expected {job.out} to be begun with {claim}, but got {head}. Choose another folder."]
            )
        outcomes = [outcome for line in lines if (outcome := _read_outcome(line)) and _is_there(outcome, job.out)]
    for folder in ("images", "masks"):
        (job.out / folder).mkdir(parents=True, exist_ok=True)
    # Written anew without what was cut off or has gone.
    write_atomic(path, "".join(f"{line}\n" for line in (claim, *(json.dumps(asdict(item)) for item in outcomes))))
    return {outcome.stem: outcome for outcome in outcomes}


def _read_outcome(line: str) -> Outcome | None:
    try:
        return Outcome(**json.loads(line))
    except (ValueError, TypeError):
        return None  # the line that was being written when the work was interrupted


def _is_there(outcome: Outcome, out: Path) -> bool:
    for name, size in outcome.files.items():
        path = out / name
        if not path.is_file() or path.stat().st_size != size:
            return False
    return True


def _write_skipped(out: Path, skipped: Sequence[tuple[str, str]]) -> None:
    if not skipped:
        (out / SKIPPED).unlink(missing_ok=True)
        return
    stream = io.StringIO()
    pd.DataFrame(skipped, columns=["image", "reason"]).to_csv(stream, index=False, lineterminator="\n")
    write_atomic(out / SKIPPED, stream.getvalue())
