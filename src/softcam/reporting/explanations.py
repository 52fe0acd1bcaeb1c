"""Explain many images: a table, evidence arrays and overlays, in bounded memory; the same command continues."""

from __future__ import annotations

import csv
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from softcam.bundle import list_versions
from softcam.errors import RunError
from softcam.files import atomic_path, write_atomic
from softcam.imaging import DecodedImage, encode_png, overlay_view, scale_limit
from softcam.predict import Outcome, Prediction, Predictor
from softcam.reporting.inputs import Entry, Frames, list_entries, summarize
from softcam.reporting.journal import Journal, Row, check_same_run, open_journal
from softcam.reporting.products import EVERYTHING, Products

Progress = Callable[[str, int, int], None]

JOURNAL, RECORD = "run.partial.jsonl", "run.json"
PRODUCTS = ("predictions.csv", "failures.csv", "evidence", "overlays")
LARGEST_OVERLAY = 2048
"""Longer side of an overlay in pixels; larger images are shown reduced."""

_KEPT_PIXELS = 16 * 1024 * 1024
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.partial\.[a-z]+$")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class ExplainSummary:
    """What an explanation run came to.

    Args:
        done: Images explained.
        failed: Images that could not be; `failures.csv` says why.
        skipped: How many of both were taken over from an earlier, identical run.
        seconds: Wall time of this call.
    """

    done: int
    failed: int
    skipped: int
    seconds: float


def explain(
    predictor: Predictor,
    inputs: Iterable[str | Path],
    out: str | Path,
    *,
    products: Products = EVERYTHING,
    frames: Frames = "each",
    progress: Progress | None = None,
) -> ExplainSummary:
    """Predict images and write `predictions.csv`, `failures.csv`, `evidence/`, `overlays/` and, last, `run.json`.

    One row per input, in input order. A call that was killed continues where it stopped when it is repeated; a
    finished one returns at once. A second file with the same bytes, or the same frame of it, fails as a duplicate of
    the first. Text cells that a spreadsheet would run as a formula get a leading apostrophe.

    Args:
        predictor: The model.
        inputs: Files, folders, zip archives and DICOMDIRs; see `list_entries` for the ids that their images get.
        out: Folder of the results. Nothing is written elsewhere.
        products: What to write for each image.
        frames: "each" for every frame of a file that holds several, or the number of the one to take, from 1.
        progress: Called with a stage, the number of inputs done and their total.

    Raises:
        IdentityError: If the maps of an image do not average to its logits, or hold NaN.
        RunError: If there is no input, or `out` holds another run or belongs to another process.
        ValueError: If `frames` is neither "each" nor a number from 1.
    """
    started = time.monotonic()
    if frames != "each" and (not isinstance(frames, int) or frames < 1):
        raise ValueError(f"Expected `frames` to be 'each' or a whole number of at least 1, but got {frames!r}.")
    run = _Run(predictor, _as_paths(inputs), Path(out), products, frames)
    identity = run.identity()
    total = identity["inputs"]["count"]
    if total == 0:
        raise RunError("Expected `inputs` to name at least one image, but got none. Hidden files are not counted.")
    if (counts := _find_finished(run.out, identity)) is None:
        counts = _complete(run, identity, progress or _ignore)
    else:
        counts = {**counts, "skipped": total}
    return ExplainSummary(counts["done"], counts["failed"], counts["skipped"], time.monotonic() - started)


@dataclass(frozen=True)
class _Run:
    """What was asked for."""

    predictor: Predictor
    inputs: tuple[Path, ...]
    out: Path
    products: Products
    frames: Frames

    def entries(self) -> Iterator[Entry]:
        return list_entries(self.inputs, exclude=self.out, frames=self.frames)

    def identity(self) -> dict[str, Any]:
        """Return all that decides the results, as JSON gives it back."""
        predictor = self.predictor
        count, digest = summarize(self.entries())
        arguments = {**self.products.arguments, "frames": self.frames}
        model = {
            "fingerprint": predictor.fingerprint,
            "classes": list(predictor.classes),
            "thresholds": predictor.thresholds,
            "preprocessing": predictor.preprocessing.to_dict(),
            "autocast": None if predictor.autocast is None else str(predictor.autocast),
        }
        return {"model": model, "arguments": arguments, "inputs": {"count": count, "digest": digest}}


def _complete(run: _Run, identity: dict[str, Any], progress: Progress) -> dict[str, int]:
    """Do what is left of a run, write its tables, and sign it off."""
    started = time.monotonic()
    with open_journal(run.out / JOURNAL) as journal:
        journal.start({**identity, "versions": list_versions()})
        _remove_leftovers(run.out)
        skipped = _work(run, journal, identity["inputs"]["count"], progress)
        counts = _write_tables(run, journal)
        if counts["inputs"] != identity["inputs"]["count"]:
            raise RunError("Expected the inputs to stay as they are, but files came or went. Use another `out`.")
        record = {
            "command": "explain",
            **identity,
            "versions": list_versions(),
            "device": str(run.predictor.device),
            "backend": {"name": run.predictor.backend, "reason": run.predictor.backend_reason},
            "batch_size": run.predictor.batch_size,
            "overlay_limit": journal.overlay_limit,
            "counts": counts,
            "seconds": round(time.monotonic() - started, 3),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": True,
        }
        write_atomic(run.out / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
        journal.path.unlink()
    return {**counts, "skipped": skipped}


def _work(run: _Run, journal: Journal, total: int, progress: Progress) -> int:
    """Explain the inputs that the journal does not hold; return how many it held."""
    entries = run.entries()
    seen: dict[str, str] = {}
    done = skipped = _take_over(journal, entries, seen)
    progress("explain", done, total)
    sent: deque[Entry] = deque()
    with closing(run.predictor.batches(_sources(entries, sent), keep_bytes=_KEPT_PIXELS)) as batches:
        for batch in batches:
            done += _finish_batch(run, journal, _pair(batch, sent), seen)
            progress("explain", done, total)
    # Refused entries after the last readable one belong to no batch.
    if sent:
        done += _finish_batch(run, journal, [(entry, None) for entry in sent], seen)
        progress("explain", done, total)
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


def _sources(entries: Iterator[Entry], sent: deque[Entry]) -> Iterator[Entry]:
    for entry in entries:
        sent.append(entry)
        if not entry.refusal:
            yield entry


Job = tuple[Entry, Outcome | None]


def _pair(batch: Sequence[Outcome], sent: deque[Entry]) -> list[Job]:
    """Return the outcomes with their entries, and the refused entries among them without one."""
    jobs: list[Job] = []
    for outcome in batch:
        while sent[0].refusal:
            jobs.append((sent.popleft(), None))
        jobs.append((sent.popleft(), outcome))
    return jobs


def _finish_batch(run: _Run, journal: Journal, jobs: Sequence[Job], seen: dict[str, str]) -> int:
    """Write the files of a batch, then its rows: a row says that its files are there."""
    rows, good = [], []
    for entry, outcome in jobs:
        row = _make_row(entry, None if outcome is None else outcome.prediction, seen, len(run.predictor.classes))
        rows.append(row)
        if outcome is not None and row.status == "ok":
            good.append((entry, outcome))
    limit = run.products.limit or journal.overlay_limit
    if good and limit is None and run.products.overlays:
        limit = scale_limit(np.stack([outcome.prediction.margin() for _, outcome in good]))
    with ThreadPoolExecutor(2, thread_name_prefix="softcam-write") as writers:
        for future in [writers.submit(_write_products, run, *pair, limit) for pair in good]:
            future.result()
    journal.append(rows, overlay_limit=limit)
    return len(rows)


def _make_row(entry: Entry, prediction: Prediction | None, seen: dict[str, str], classes: int) -> Row:
    empty = ("",) * (2 + 2 * classes)
    if prediction is None:
        return Row(entry.id, "failed", empty, entry.refusal)
    if prediction.status == "failed":
        return Row(entry.id, "failed", empty, prediction.reason, prediction.digest)
    digest = prediction.digest if entry.frame is None else f"{prediction.digest}#{entry.frame}"
    if first := seen.get(digest):
        return Row(entry.id, "failed", empty, f"duplicate of {first}", digest)
    seen[digest] = entry.id
    # Nine digits give back every float32.
    numbers = [f"{value:.9g}" for value in (*prediction.probabilities, *prediction.logits)]
    cells = (prediction.predicted or "", *numbers, f"{prediction.sum_error:.3g}")
    return Row(entry.id, "ok", cells, digest=digest)


def _write_products(run: _Run, entry: Entry, outcome: Outcome, limit: float | None) -> None:
    """Write all files of one image; called in a worker thread."""
    if run.products.arrays:
        _write_arrays(run.out / "evidence" / f"{entry.id}.npz", outcome.prediction)
    if run.products.overlays and limit is not None:
        pixels = draw_overlay(outcome.image or entry.decode(), outcome.prediction, limit=limit)
        write_atomic(run.out / "overlays" / f"{entry.id}.png", encode_png(pixels))
    if run.products.further is not None:
        run.products.further.write(entry, outcome)


def _write_arrays(path: Path, prediction: Prediction) -> None:
    spacing: dict[str, Any] = {} if prediction.spacing is None else {"spacing": np.array(prediction.spacing)}
    with atomic_path(path) as file:
        np.savez_compressed(
            file,
            maps=prediction.maps,
            logits=prediction.logits,
            classes=np.array(prediction.classes),
            geometry=np.array(prediction.geometry.to_json() if prediction.geometry else ""),
            **spacing,
        )


def draw_overlay(image: DecodedImage, prediction: Prediction, *, limit: float) -> npt.NDArray[np.uint8]:
    """Return the upright image with the evidence for the predicted class against its rival where the network looked.

    Args:
        image: The original.
        prediction: What was predicted for it.
        limit: Logits per cell that get the full colour.

    Returns:
        (H, W, 3); images with a side above `LARGEST_OVERLAY` are reduced.

    Raises:
        ValueError: If the prediction failed or the image is not the one that was predicted.
    """
    geometry = prediction.geometry
    if geometry is None or (geometry.original_height, geometry.original_width) != (image.height, image.width):
        raise ValueError("Expected `prediction` to be one of `image`, but it failed or is about another size.")
    canvas = _reduced(image.to_rgb8())
    overlay_view(canvas, geometry, prediction.margin(), limit)
    return canvas


def _reduced(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a writable copy whose longer side is at most `LARGEST_OVERLAY`."""
    factor = min(1.0, LARGEST_OVERLAY / max(pixels.shape[:2]))
    if factor == 1.0:
        return pixels.copy()
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _write_tables(run: _Run, journal: Journal) -> dict[str, int]:
    """Write the two tables from the journal, row by row, and return the counts."""
    counts = {"inputs": 0, "done": 0, "failed": 0}
    names = run.predictor.classes
    columns = [f"{kind}_{name}" for kind in ("prob", "logit") for name in names]
    with (
        atomic_path(run.out / "predictions.csv") as table,
        atomic_path(run.out / "failures.csv") as failures,
        table.open("w", encoding="utf-8", newline="") as all_rows,
        failures.open("w", encoding="utf-8", newline="") as bad_rows,
    ):
        writer, bad_writer = (csv.writer(stream, lineterminator="\n") for stream in (all_rows, bad_rows))
        writer.writerow(["image", "status", "predicted", *columns, "sum_error", "error"])
        bad_writer.writerow(["image", "reason"])
        for row in journal.rows():
            image, error = _as_text(row.id), _as_text(row.error)
            writer.writerow([image, row.status, _as_text(row.cells[0]), *row.cells[1:], error])
            counts["inputs"] += 1
            counts["done" if row.status == "ok" else "failed"] += 1
            if row.status == "failed":
                bad_writer.writerow([image, error])
    return counts


def _as_text(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _find_finished(out: Path, identity: dict[str, Any]) -> dict[str, int] | None:
    """Return the counts of a finished identical run in this folder, None if there is none."""
    if not (out / RECORD).exists():
        foreign = [name for name in PRODUCTS if (out / name).exists()]
        if foreign and not (out / JOURNAL).exists():
            raise RunError(
                f"Expected {out} to be new or to hold this run, but it holds {', '.join(foreign)} of another."
            )
        return None
    try:
        record = json.loads((out / RECORD).read_bytes())
        counts: dict[str, int] = record["counts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"Expected {RECORD} in {out} to be the record of a run, but it cannot be read.") from error
    check_same_run(record, identity, out)
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
