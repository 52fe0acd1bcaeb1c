"""Explain many images: a table, evidence arrays and overlays, in bounded memory; the same command continues."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from softcam.bundle import list_versions
from softcam.errors import RunError
from softcam.files import StagedFile, stage, write_atomic
from softcam.imaging import encode_png, scale_limit
from softcam.predict import Outcome, Predictor, Readable
from softcam.predict.prefetch import read_ahead
from softcam.records import describe_context, describe_prediction, now, write_chain
from softcam.reporting.evidence_file import encode_evidence
from softcam.reporting.finishing import Batch, Finisher
from softcam.reporting.inputs import WHOLE, Draft, Entry, Listing, Reading, summarize
from softcam.reporting.journal import Journal, Row, open_journal
from softcam.reporting.overlays import draw_overlay
from softcam.reporting.predictions import Columns, make_row, write_tables
from softcam.reporting.products import EVERYTHING, Products
from softcam.reporting.regions import BOXES, REGIONS, describe_regions, write_regions
from softcam.runs import RECORD, read_counts, say_what_the_disk_lacks

Progress = Callable[[str, int, int], None]

JOURNAL = "run.partial.jsonl"
RECORDS = "records.jsonl"
PRODUCTS = ("predictions.csv", "failures.csv", "evidence", "overlays", RECORDS, REGIONS, BOXES)

_KEPT_PIXELS = 16 * 1024 * 1024
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.partial\.[a-z]+$")


@dataclass(frozen=True)
class ExplainSummary:
    """What an explanation run came to.

    Args:
        done: Images explained.
        failed: Images that could not be; `failures.csv` says why.
        skipped: How many of both were taken over from an earlier, identical run.
        seconds: Wall time of this call.
        warned: Images explained that are unlike those of the training; the table says in what.
    """

    done: int
    failed: int
    skipped: int
    seconds: float
    warned: int = 0


def explain(
    predictor: Predictor,
    inputs: Iterable[str | Path],
    out: str | Path,
    *,
    products: Products = EVERYTHING,
    reading: Reading = WHOLE,
    progress: Progress | None = None,
) -> ExplainSummary:
    """Predict images and write `predictions.csv`, `failures.csv`, `evidence/`, `overlays/` and, last, `run.json`.

    Where regions are asked for, also `regions.csv` and `boxes.csv`.

    One row per input, in input order. A call that was killed continues where it stopped when it is repeated; a
    finished one returns at once. A second file with the same bytes, or the same frame of it, fails as a duplicate of
    the first. Text cells that a spreadsheet would run as a formula get a leading apostrophe.

    Args:
        predictor: The model.
        inputs: Files, folders, zip archives and DICOMDIRs; see `Listing` for the ids that their images get.
        out: Folder of the results. Nothing is written elsewhere.
        products: What to write for each image.
        reading: How files are read.
        progress: Called with a stage, the number of inputs done and their total.

    Raises:
        IdentityError: If the maps of an image do not average to its logits, or hold NaN.
        RunError: If there is no input, or `out` cannot be written, holds another run or belongs to another process.
    """
    started = time.monotonic()
    listing = Listing(_as_paths(inputs), exclude=Path(out), frames=reading.frames)
    run = _Run(predictor, listing, Path(out), products, reading)
    identity = run.identity()
    total = identity["inputs"]["count"]
    if total == 0:
        raise RunError("Expected `inputs` to name at least one image, but got none. Hidden files are not counted.")
    with say_what_the_disk_lacks(run.out):
        if (counts := _find_finished(run.out, identity)) is None:
            counts = _complete(run, identity, progress or _ignore)
        else:
            counts = {**counts, "skipped": total}
    seconds, warned = time.monotonic() - started, counts.get("warned", 0)
    return ExplainSummary(counts["done"], counts["failed"], counts["skipped"], seconds, warned)


@dataclass(frozen=True)
class _Run:
    """What was asked for."""

    predictor: Predictor
    listing: Listing
    out: Path
    products: Products
    reading: Reading

    def write(self, entry: Entry, outcome: Outcome, limit: float | None) -> Sequence[StagedFile]:
        """Write all files of one image; called in a worker thread."""
        written: list[StagedFile] = []
        try:
            if self.products.arrays:
                written.append(stage(self.out / "evidence" / f"{entry.id}.npz", encode_evidence(outcome.prediction)))
            if self.products.overlays and limit is not None:
                image, asked = outcome.image or entry.decode(), self.products.regions
                boxes = None if asked is None or not asked.boxes else asked.find(outcome.prediction)
                pixels = draw_overlay(image, outcome.prediction, limit=limit, regions=boxes)
                written.append(stage(self.out / "overlays" / f"{entry.id}.png", encode_png(pixels)))
            if self.products.further is not None:
                self.products.further.write(entry, outcome)
        except BaseException:
            for staged in written:
                staged.discard()
            raise
        return written

    def identity(self) -> dict[str, Any]:
        """Return all that decides the results, as JSON gives it back."""
        count, digest = summarize(self.listing)
        arguments = {**self.products.arguments, **self.reading.arguments, **self.predictor.checker.identity}
        return {"model": self.predictor.identity, "arguments": arguments, "inputs": {"count": count, "digest": digest}}


def _complete(run: _Run, identity: dict[str, Any], progress: Progress) -> dict[str, int]:
    """Do what is left of a run, write its tables, and sign it off."""
    started = time.monotonic()
    with open_journal(run.out / JOURNAL) as journal:
        journal.start({**identity, "versions": list_versions()})
        _remove_leftovers(run.out)
        skipped = _work(run, journal, identity["inputs"]["count"], progress)
        counts = write_tables(run.out, journal.rows(), Columns.of(run.predictor))
        if counts["inputs"] != identity["inputs"]["count"]:
            raise RunError("Expected the inputs to stay as they are, but files came or went. Use another `out`.")
        if run.products.regions is not None:
            write_regions(run.out, ((row.id, row.regions) for row in journal.rows() if row.regions is not None))
        head = _write_records(run, journal)
        record = {
            "command": "explain",
            **identity,
            "versions": list_versions(),
            "device": str(run.predictor.device),
            "backend": {"name": run.predictor.backend, "reason": run.predictor.backend_reason},
            "batch_size": run.predictor.batch_size,
            "overlay_limit": journal.overlay_limit,
            "counts": counts,
            **({} if head is None else {"records": {"head": head}}),
            "seconds": round(time.monotonic() - started, 3),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": True,
        }
        write_atomic(run.out / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
        journal.path.unlink()
    return {**counts, "skipped": skipped}


def _work(run: _Run, journal: Journal, total: int, progress: Progress) -> int:
    """Explain the inputs that the journal does not hold; return how many it held."""
    entries, seen = iter(run.listing), dict[str, str]()
    done = skipped = _take_over(journal, entries, seen)
    progress("explain", done, total)

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        progress("explain", done, total)

    sent: deque[Entry] = deque()
    sources = _sources(entries, sent, run.predictor.preprocessing.least_side if run.reading.draft else None)
    limit = run.products.limit or journal.overlay_limit
    keep = _KEPT_PIXELS if run.products.overlays else 0
    with (
        Finisher(journal, run.write, out=run.out, tell=tell) as finisher,
        closing(run.predictor.batches(sources, keep_bytes=keep)) as batches,
        closing(read_ahead(batches)) as computed,
    ):
        for outcomes in computed:
            batch = _make_batch(run, _pair(outcomes, sent), seen, limit)
            limit = batch.limit
            finisher.submit(batch)
        # Refused entries after the last readable one belong to no batch.
        if sent:
            finisher.submit(_make_batch(run, [(entry, None) for entry in sent], seen, limit))
    return skipped


def _take_over(journal: Journal, entries: Iterator[Entry], seen: dict[str, str]) -> int:
    count = 0
    for row, entry in zip(journal.rows(), entries, strict=False):
        if row.id != entry.id:
            raise RunError(f"Expected input {count} to be {row.id!r} as before, but got {entry.id!r}.")
        if row.status == "ok":
            seen[row.digest] = row.id
        count += 1
    return count


def _sources(entries: Iterator[Entry], sent: deque[Entry], least_side: int | None) -> Iterator[Readable]:
    for entry in entries:
        sent.append(entry)
        if not entry.refusal:
            yield entry if least_side is None else Draft(entry, least_side)


Job = tuple[Entry, Outcome | None]


def _pair(batch: Sequence[Outcome], sent: deque[Entry]) -> list[Job]:
    """Return the outcomes with their entries, and the refused entries among them without one."""
    jobs: list[Job] = []
    for outcome in batch:
        while sent[0].refusal:
            jobs.append((sent.popleft(), None))
        jobs.append((sent.popleft(), outcome))
    return jobs


def _make_batch(run: _Run, jobs: Sequence[Job], seen: dict[str, str], limit: float | None) -> Batch:
    """Return what is to be written of a batch; the first one with overlays chooses their scale."""
    rows, good = [], []
    for entry, outcome in jobs:
        row = make_row(entry, None if outcome is None else outcome.prediction, seen, Columns.of(run.predictor))
        if run.products.signer is not None:
            row = _with_facts(row, entry, outcome, arrays=run.products.arrays)
        if outcome is not None and row.status == "ok":
            good.append((entry, outcome))
            if run.products.regions is not None:
                row = replace(row, regions=describe_regions(outcome.prediction, run.products.regions))
        rows.append(row)
    if good and limit is None and run.products.overlays:
        limit = scale_limit(np.concatenate([outcome.prediction.margin().ravel() for _, outcome in good]))
    return Batch(rows, good, limit)


def _with_facts(row: Row, entry: Entry, outcome: Outcome | None, *, arrays: bool) -> Row:
    """Return the row with what its record will say."""
    if outcome is not None and row.status == "ok":
        file = f"evidence/{entry.id}.npz" if arrays else None
        body = describe_prediction(outcome.prediction, name=entry.id, frame=entry.frame, file=file)
    else:
        image = {"name": entry.id, "digest": row.digest.partition("#")[0], "frame": entry.frame}
        body = {"kind": "failure", "image": image, "reason": row.error}
    return replace(row, facts={"time": now(), "body": body})


def _write_records(run: _Run, journal: Journal) -> str | None:
    """Sign what the journal holds of every image, and return the digest of the last record."""
    if run.products.signer is None:
        return None
    context = {**describe_context(run.predictor), "reading": run.reading.arguments}
    facts = ((row.facts["body"], row.facts["time"]) for row in journal.rows() if row.facts is not None)
    return write_chain(run.out / RECORDS, chain([(context, now())], facts), run.products.signer)


def _find_finished(out: Path, identity: dict[str, Any]) -> dict[str, int] | None:
    """Return the counts of a finished identical run in this folder, None if there is none."""
    if not (out / RECORD).exists():
        foreign = [name for name in PRODUCTS if (out / name).exists()]
        if foreign and not (out / JOURNAL).exists():
            raise RunError(
                f"Expected {out} to be new or to hold this run, but it holds {', '.join(foreign)} of another."
            )
        return None
    counts = read_counts(out, identity)
    (out / JOURNAL).unlink(missing_ok=True)
    return counts


def _remove_leftovers(out: Path) -> None:
    # Temporary files of a killed run; ids never begin with a dot, so nothing else has such a name.
    for path in out.rglob(".*.partial.*"):
        if _TEMPORARY.search(path.name):
            path.unlink(missing_ok=True)


def _as_paths(inputs: Iterable[str | Path]) -> tuple[Path, ...]:
    if isinstance(inputs, str | Path):
        return (Path(inputs),)
    return tuple(map(Path, inputs))


def _ignore(_stage: str, _done: int, _total: int) -> None:
    """Report nothing."""
