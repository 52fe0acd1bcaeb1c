"""From shards to a finished run: duplicates named, rows counted, failures listed, the record written last."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from softcam.bundle import list_versions
from softcam.distributed.attempts import FOLDER
from softcam.distributed.plan import PLAN, STATE, Plan
from softcam.distributed.shards import TABLE, fail_duplicate, list_done, name_shard, remove_leftovers, write_table
from softcam.errors import RunError
from softcam.files import atomic_path, write_atomic
from softcam.runs import RECORD, as_text, check_same_run, read_counts
from softcam.versions import installed_versions

_FOREIGN = ("predictions.csv", "run.partial.jsonl", TABLE)


def find_finished(out: Path, identity: Mapping[str, Any]) -> dict[str, int] | None:
    """Return the counts of a finished identical run, None if there is none yet.

    Args:
        out: Folder of the results.
        identity: All that decides them.

    Raises:
        RunError: If the folder holds another run, or its record cannot be read.
    """
    if not (out / RECORD).exists():
        foreign = [name for name in _FOREIGN if (out / name).exists()]
        if foreign and not (out / STATE).exists():
            raise RunError(f"Expected {out} to be new or to hold this run, but it holds {foreign[0]} of another.")
        if (out / STATE).exists():
            check_same_run(json.loads((out / STATE).read_bytes())["identity"], identity, out)
        return None
    return read_counts(out, identity)


def finish(out: Path, plan: Plan, identity: Mapping[str, Any], *, repeated: int) -> dict[str, int]:
    """Name duplicates, check that each input has its row, list failures and write the record.

    Args:
        out: Folder of the results; every shard is there.
        plan: The inputs.
        identity: All that decides the results.
        repeated: Shards that were begun again.

    Returns:
        How many inputs there are, how many are done and how many failed.

    Raises:
        RunError: If rows are missing or belong to other inputs.
    """
    remove_leftovers(out)
    if list_done(out) != set(range(plan.shards)):
        raise RunError(f"Expected {plan.shards} files in {out / TABLE}, but got others. Remove the folder.")
    fail_duplicates(out, plan.shards)
    counts = _list_failures(out, plan)
    record = {
        "command": "explain",
        **identity,
        "versions": {**list_versions(), **installed_versions(["ray", "pyarrow"])},
        "shards": plan.shards,
        "shards_repeated": repeated,
        "counts": counts,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": True,
    }
    write_atomic(out / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
    forget_state(out)
    return counts


def forget_state(out: Path) -> None:
    """Remove what only a run under way needs."""
    for name in (PLAN, STATE):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def fail_duplicates(out: Path, shards: int) -> None:
    """Let every input with the bytes of an earlier one fail as its duplicate; doing it again changes nothing.

    Args:
        out: Folder of the results.
        shards: How many files there are.
    """
    repeated = _find_repeated(out, shards)
    if not repeated:
        return
    first: dict[str, str] = {}
    for shard in range(shards):
        path = name_shard(out, shard)
        rows = pq.read_table(path, columns=["id", "status", "digest"]).to_pylist()
        found = []
        for index, row in enumerate(rows):
            if row["status"] == "ok" and row["digest"] in repeated:
                original = first.setdefault(row["digest"], row["id"])
                if original != row["id"]:
                    found.append((index, original))
        if found:
            table = pq.read_table(path)
            for index, original in found:
                table = fail_duplicate(table, index, original)
            write_table(path, table)


def _find_repeated(out: Path, shards: int) -> set[str]:
    digests = []
    for shard in range(shards):
        table = pq.read_table(name_shard(out, shard), columns=["status", "digest"])
        digests.append(table.filter(pc.equal(table["status"], "ok"))["digest"].combine_chunks())
    counts = pc.value_counts(pa.chunked_array(digests, pa.string()))
    values, numbers = counts.field("values"), counts.field("counts")
    return set(values.filter(pc.greater(numbers, 1)).to_pylist())


def _list_failures(out: Path, plan: Plan) -> dict[str, int]:
    """Write `failures.csv`, check every id against the plan, and return the counts."""
    counts = {"inputs": 0, "done": 0, "failed": 0}
    with atomic_path(out / "failures.csv") as path, path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "reason"])
        for shard in range(plan.shards):
            rows = pq.read_table(name_shard(out, shard), columns=["id", "status", "reason"]).to_pylist()
            if [row["id"] for row in rows] != [item.id for item in plan.read(shard)]:
                raise RunError(f"Expected one row per input in {name_shard(out, shard)}, but got others. Remove it.")
            for row in rows:
                counts["inputs"] += 1
                counts["done" if row["status"] == "ok" else "failed"] += 1
                if row["status"] == "failed":
                    writer.writerow([as_text(row["id"]), as_text(row["reason"])])
    return counts
