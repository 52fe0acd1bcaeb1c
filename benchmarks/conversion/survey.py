"""Decide for every classifier of timm and torchvision what becomes of it: `python benchmarks/conversion/survey.py`.

Two passes. The head of every timm model with a classifier is judged without its trunk's weights. Then whole networks
are converted at their default input size, with random weights that look trained (norms, biases, batch norm statistics,
layer scales and zero-initialised weights get values that hide no mistake), and measured on two images of noise: every
classifier of torchvision, and the smallest model of every module of timm; the smallest of every module in float64 too.
A measured row must agree with its judged one.

Writes the table that `softcam models` reads. Results are kept in a JSON-lines file as they come, and a run that was
ended is continued; with other versions of the libraries it starts over.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from softcam.backbones import create_skeleton
from softcam.files import write_atomic
from softcam.survey.judge import create_empty, judge_network
from softcam.survey.measure import measure_model
from softcam.survey.table import Survey, SurveyRow
from softcam.versions import installed_versions

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = ROOT / "src" / "softcam" / "survey.json"
PARTIAL = ROOT / "benchmarks" / "results" / "survey.partial.jsonl"
LIBRARIES = ("torch", "torchvision", "timm")
MOST_PARAMETERS = 150e6
AGREED = ("outcome", "head", "layout", "prefix", "channels", "input_size", "grid", "map_stride")

Record = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--partial", type=Path, default=PARTIAL, help="file of the results so far")
    parser.add_argument("--out", type=Path, default=PACKAGED)
    options = parser.parse_args()
    versions = installed_versions(LIBRARIES)
    done = read_partial(options.partial, versions)
    run_all(judge, [f"timm:{name}" for name in timm.list_models()], done, options)
    smallest = list_smallest(done)
    run_all(measure, smallest, done, options)
    run_all(measure_in_single, [name for name in list_torchvision() if name not in smallest], done, options)
    survey = Survey(versions, tuple(merge(done)))
    write_atomic(options.out, survey.to_json())
    defects = [row for row in survey.rows if row.outcome == "defect"]
    for row in defects:
        print(f"defect: {row.model}: {row.reason}", file=sys.stderr)
    if not defects:
        options.partial.unlink()
    return int(bool(defects))


def judge(name: str) -> Record:
    """Return the judged row of a timm model, None without a classifier, and what chooses among models."""
    network = create_empty(name)
    if network is None:
        return {"row": None}
    family = timm.model_entrypoint(name.partition(":")[2]).__module__
    size = sum(parameter.numel() for parameter in network.parameters())
    return {"row": judge_network(network, name).to_dict(), "family": family, "parameters": size}


def measure(name: str) -> Record:
    return {"row": measure_model(name).to_dict()}


def measure_in_single(name: str) -> Record:
    return {"row": measure_model(name, in_double=False).to_dict()}


def list_torchvision() -> list[str]:
    return [f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)]


def list_smallest(done: dict[tuple[str, str], Record]) -> list[str]:
    """Return the smallest model of every module of both libraries, those without a small one left out."""
    found: dict[str, list[tuple[int, str]]] = {}
    for (work, name), record in done.items():
        if work == "judge" and record.get("family"):
            found.setdefault(record["family"], []).append((record["parameters"], name))
    for name in list_torchvision():
        model = name.partition(":")[2]
        size = sum(parameter.numel() for parameter in create_skeleton(name).parameters())
        family = torchvision.models.get_model_builder(model).__module__
        found.setdefault(family, []).append((size, name))
    return sorted(name for size, name in map(min, found.values()) if size <= MOST_PARAMETERS)


def merge(done: dict[tuple[str, str], Record]) -> Iterable[SurveyRow]:
    """Yield one row per model, those of torchvision first; a measured row takes the place of a judged one."""
    rows: dict[str, SurveyRow] = {}
    for work in ("judge", "measure", "measure_in_single"):
        for (made_by, name), record in done.items():
            if made_by == work and record["row"] is not None:
                row = SurveyRow.from_dict(record["row"])
                rows[name] = check(row, rows.get(name))
    return (rows[name] for name in sorted(rows, key=lambda name: (not name.startswith("torchvision:"), name)))


def check(row: SurveyRow, judged: SurveyRow | None) -> SurveyRow:
    """Return the row, or a defect where a model was judged differently from what was measured."""
    if judged is None or "defect" in (row.outcome, judged.outcome):
        return row
    different = [name for name in AGREED if getattr(row, name) != getattr(judged, name)]
    if not different:
        return row
    words = ", ".join(f"{name} {getattr(judged, name)} but measured {getattr(row, name)}" for name in different)
    return SurveyRow(row.model, "defect", reason=f"judged {words}")


def run_all(
    work: Callable[[str], Record], names: list[str], done: dict[tuple[str, str], Record], options: argparse.Namespace
) -> None:
    """Work on the names that are not done yet, and keep the results."""
    waiting = [name for name in names if (work.__name__, name) not in done]
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.jobs, mp_context=context, initializer=prepare)
    with pool, options.partial.open("a", encoding="utf-8") as partial:
        started = [pool.submit(attempt, work, name) for name in waiting]
        for count, future in enumerate(as_completed(started), start=1):
            record = future.result()
            done[work.__name__, record["model"]] = record
            partial.write(json.dumps({"work": work.__name__, **record}) + "\n")
            partial.flush()
            print(f"{work.__name__} {count}/{len(waiting)} {describe(record)}", file=sys.stderr)


def prepare() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def attempt(work: Callable[[str], Record], name: str) -> Record:
    """Return what the work gives; whatever it raises, and it should raise nothing, is a defect of the library."""
    started = time.perf_counter()
    try:
        record = work(name)
    except Exception as error:  # noqa: BLE001 - a survey goes on, and says what happened
        defect = SurveyRow(name, "defect", reason=f"{type(error).__name__}: {error}".splitlines()[0])
        record = {"row": defect.to_dict(), "traceback": traceback.format_exc()}
    return {"model": name, "seconds": round(time.perf_counter() - started, 1), **record}


def describe(record: Record) -> str:
    outcome = "no classifier" if record["row"] is None else record["row"]["outcome"]
    return f"{record['model']}: {outcome}, {record['seconds']} s"


def read_partial(path: Path, versions: dict[str, str]) -> dict[tuple[str, str], Record]:
    """Return what an earlier run with the same versions has found, defects apart, and leave only that in the file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    # A run that was ended may have left half a line.
    records = [json.loads(line) for line in lines if line.endswith("}")]
    kept = records[1:] if records and records[0] == {"versions": versions} else []
    kept = [record for record in kept if record["row"] is None or record["row"]["outcome"] != "defect"]
    path.write_text("".join(json.dumps(record) + "\n" for record in [{"versions": versions}, *kept]), encoding="utf-8")
    return {(record.pop("work"), record["model"]): record for record in kept}


if __name__ == "__main__":
    sys.exit(main())
