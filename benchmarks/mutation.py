"""Make small faults in `nn` and `metrics` and see whether a test fails.

    python benchmarks/mutation.py [--quick] [--mutants 600] [--seed 0] [--processes 1]

A sample is drawn from all faults that the operators of mutmut make, texts for people left alone; all those of the
penalties are tried as well. Each fault meets the tests of its room (`tests/unit/<room>`) that run its statement: those
of the module's own file first, then the fastest, until one fails. A statement that is run when the module is imported
meets all tests that run anything of the module. Doctests and slow tests are left out. A parent that has loaded the
libraries forks a process for each fault, whose importer swaps the module's source; no file is changed. What survives
and yet changes nothing that can be seen is listed in `mutation_equivalent.json`, with the reason. Goes on where it was
ended. Writes `benchmarks/results/mutation.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType
from typing import Any

# Before torch is loaded: a process per fault, each on one core.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import coverage
import pytest
from environment import describe_environment
from mutants import Mutant, list_mutants
from options import choose_out, create_parser
from scipy.stats import binomtest

from softcam.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "mutation.json"
EQUIVALENT = ROOT / "benchmarks" / "mutation_equivalent.json"
ROOMS = ("nn", "metrics")
PENALTIES = "softcam.nn.penalties"
MUTANTS, QUICK_MUTANTS = 600, 6
# Other plugins would be loaded again for each fault.
PLUGINS = ("pytest_timeout", "_hypothesis_pytestplugin")
OPTIONS = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *(f"-p{plugin}" for plugin in PLUGINS))
PRELOADED = ("torch", "torchvision", "timm", "scipy.stats", "scipy.sparse.linalg", "pandas", "hypothesis", *PLUGINS)
# What a fault may do to the machine.
GRACE, FACTOR = 60.0, 5.0

fork = multiprocessing.get_context("fork")


@dataclass(eq=False)
class Watch:
    """Of each test: how long it takes, and which lines it runs. A plugin of pytest."""

    tracer: coverage.Coverage
    seconds: dict[str, float] = field(default_factory=dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Run a test under its name."""
        self.tracer.switch_context(item.nodeid)
        begun = time.perf_counter()
        done = yield
        self.seconds[item.nodeid] = time.perf_counter() - begun
        return done


@dataclass(eq=False)
class Failures:
    """The tests that fail. A plugin of pytest."""

    names: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed:
            self.names.append(report.nodeid)


class Faulty(SourceFileLoader):
    """Load a module from a source that is not the one on disk."""

    def __init__(self, mutant: Mutant, source: str) -> None:
        super().__init__(mutant.module, str(mutant.path))
        self.source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the name is the interface's
        """Return the faulty module."""
        return compile(self.source, self.path, "exec")


class Swap(importlib.abc.MetaPathFinder):
    """Find the module that has a fault, and no other."""

    def __init__(self, mutant: Mutant, source: str) -> None:
        self.loader = Faulty(mutant, source)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return the faulty module's, if asked for it."""
        return importlib.util.spec_from_loader(fullname, self.loader) if fullname == self.loader.name else None


@dataclass(frozen=True)
class Tests:
    """Which tests run which lines.

    Args:
        seconds: Of each test.
        lines: By file, by line: the tests; the empty name stands for the import.
    """

    seconds: Mapping[str, float]
    lines: Mapping[str, Mapping[int, Sequence[str]]]

    def choose(self, mutant: Mutant) -> list[str]:
        """Return the tests that may notice a fault, the likeliest first."""
        by_line = self.lines.get(str(mutant.path), {})
        found = {test for line in mutant.lines for test in by_line.get(line, ())}
        if "" in found:
            found = {test for tests in by_line.values() for test in tests} - {""}
        own = f"test_{mutant.path.stem}.py::"
        return sorted(found, key=lambda test: (own not in test, self.seconds[test], test))


@dataclass(frozen=True)
class Verdict:
    """What became of a fault.

    Args:
        name: Of the fault.
        module: That has it.
        outcome: `killed`, `timeout` or `survived`.
        test: That failed first; empty where none did.
        tests: How many there were to fail.
    """

    name: str
    module: str
    outcome: str
    test: str
    tests: int


def run_tests(names: Sequence[str], plugins: Sequence[object] = ()) -> int:
    """Run tests in this process, quietly; return pytest's exit code."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
        return int(pytest.main([*OPTIONS, "--rootdir", str(ROOT), *names], plugins=list(plugins)))


def trace(answer: Connection) -> None:
    """Run all tests of the rooms and answer with what those that pass run; the body of a process."""
    tracer = coverage.Coverage(data_file=None, source=["softcam"], config_file=False)
    watch, failures = Watch(tracer), Failures()
    tracer.start()
    tracer.switch_context("")
    places = [str(ROOT / "tests" / "unit" / room) for room in ROOMS]
    code = run_tests(["--maxfail=20", *places], [watch, failures])
    tracer.stop()
    data = tracer.get_data()
    lines = {name: data.contexts_by_lineno(name) for name in data.measured_files()}
    answer.send((code, watch.seconds, lines, failures.names))


def try_mutant(answer: Connection, mutant: Mutant | None, source: str, names: Sequence[str]) -> None:
    """Run tests against a fault and answer with the exit code and the test that failed; the body of a process."""
    os.setsid()
    failures = Failures()
    if mutant is not None:
        sys.meta_path.insert(0, Swap(mutant, source))
    code = run_tests(names, [failures])
    answer.send((code, (failures.names or [""])[0]))


def ask(body: Any, *arguments: Any) -> Any:
    """Return what a forked process answers."""
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=body, args=(there, *arguments))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def find_tests(memory: Path, state: str) -> Tests:
    """Return which tests run which lines, as an earlier run found it or as they are found now.

    Args:
        memory: File of what was found.
        state: Of the sources and tests.

    Raises:
        RuntimeError: If many tests fail without a fault, or one is not found by its name.
    """
    if memory.is_file() and (found := json.loads(memory.read_text(encoding="utf-8")))["state"] == state:
        lines = {name: {int(line): tests for line, tests in own.items()} for name, own in found["lines"].items()}
        return Tests(found["seconds"], lines)
    code, seconds, lines, failed = ask(trace)
    if code and len(failed) not in range(1, 20):
        raise RuntimeError(f"Expected tests to pass before there is a fault, but pytest ended with {code}.")
    print("without a fault, and left out:", failed, flush=True)
    lines = {
        name: {line: [test for test in tests if test not in failed] for line, tests in own.items()}
        for name, own in lines.items()
    }
    if code := ask(try_mutant, None, "", ["--collect-only", *sorted(seconds)])[0]:
        raise RuntimeError(f"Expected all tests to be found by name, but pytest ended with {code}.")
    write_atomic(memory, json.dumps({"state": state, "seconds": seconds, "lines": lines}))
    return Tests(seconds, lines)


def draw(seed: int, count: int) -> tuple[list[tuple[Mutant, str]], int]:
    """Return faults with their sources, drawn from all, then those of the penalties; and how many there are."""
    everything = [
        mutant
        for room in ROOMS
        for path in sorted((ROOT / "src" / "softcam" / room).rglob("*.py"))
        for mutant in list_mutants(path, _name(path))
    ]
    drawn = random.Random(seed).sample(everything, len(everything))  # noqa: S311 - a sample, no secret
    found: list[tuple[Mutant, str]] = []
    for mutant in drawn:
        if len(found) == count:
            break
        if (source := mutant.write()) is not None:
            found.append((mutant, source))
    return found, len(everything)


def list_penalties() -> list[tuple[Mutant, str]]:
    path = ROOT / "src" / Path(*PENALTIES.split(".")).with_suffix(".py")
    return [(mutant, source) for mutant in list_mutants(path, PENALTIES) if (source := mutant.write()) is not None]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def judge(
    drawn: Iterable[tuple[Mutant, str]], tests: Tests, processes: int, unfit: Container[str]
) -> Iterator[Verdict]:
    """Try faults, some at a time; yield what becomes of each."""
    waiting = iter(drawn)
    running: dict[Connection, tuple[Any, Mutant, list[str], float]] = {}
    while True:
        while len(running) < processes and (item := next(waiting, None)) is not None:
            mutant, source = item
            if not (names := [name for name in tests.choose(mutant) if name not in unfit]):
                yield Verdict(mutant.name, mutant.module, "survived", "", 0)
                continue
            here, there = fork.Pipe(duplex=False)
            process = fork.Process(target=try_mutant, args=(there, mutant, source, names))
            process.start()
            there.close()
            limit = GRACE + FACTOR * sum(tests.seconds[name] for name in names)
            running[here] = (process, mutant, names, time.monotonic() + limit)
        if not running:
            return
        ready = wait(list(running), timeout=1)
        late = [pipe for pipe, (_, _, _, deadline) in running.items() if time.monotonic() > deadline]
        for pipe in {*ready, *late}:
            process, mutant, names, _ = running.pop(pipe)  # type: ignore[index] - only pipes are waited for
            yield _conclude(pipe, process, mutant, names)  # type: ignore[arg-type]


def _conclude(pipe: Connection, process: Any, mutant: Mutant, names: Sequence[str]) -> Verdict:
    outcome, test = "timeout", ""
    if pipe.poll():
        try:
            code, test = pipe.recv()
            outcome = "killed" if code else "survived"
        except EOFError:
            outcome = "killed"  # the interpreter ended
    pipe.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return Verdict(mutant.name, mutant.module, outcome, test, len(names))


def summarize(verdicts: Sequence[Verdict], reasons: Mapping[str, str]) -> dict[str, Any]:
    """Return counts and what survived."""
    survived = [verdict for verdict in verdicts if verdict.outcome == "survived"]
    equivalent = [verdict for verdict in survived if verdict.name in reasons]
    killed = len(verdicts) - len(survived)
    low, high = binomtest(killed, len(verdicts)).proportion_ci(method="wilson")
    rooms = Counter(verdict.module.split(".")[1] for verdict in verdicts)
    lost = Counter(verdict.module.split(".")[1] for verdict in survived)
    return {
        "tried": len(verdicts),
        "killed": killed,
        "share": round(killed / len(verdicts), 4),
        "interval": [round(low, 4), round(high, 4)],
        "timeouts": sum(verdict.outcome == "timeout" for verdict in verdicts),
        "equivalent": len(equivalent),
        "rooms": {room: {"tried": rooms[room], "killed": rooms[room] - lost[room]} for room in sorted(rooms)},
        "survived": [
            {"fault": verdict.name, "tests": verdict.tests, "equivalent": reasons.get(verdict.name)}
            for verdict in sorted(survived, key=lambda verdict: verdict.name)
        ],
    }


def read_journal(path: Path, state: str) -> dict[str, Verdict]:
    """Return what earlier runs found about the same sources and tests, by fault."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn
        if record.pop("state") == state:
            found[record["name"]] = Verdict(**record)
    return found


def describe_state() -> str:
    """Return a digest of all that decides what becomes of a fault."""
    digest = hashlib.sha256()
    for place in ("tests/conftest.py", "tests/unit/conftest.py", *(f"tests/unit/{room}" for room in ROOMS), "src"):
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def try_all(drawn: Sequence[tuple[Mutant, str]], options: argparse.Namespace, out: Path) -> list[Verdict]:
    """Return what becomes of each fault, noting each."""
    state = describe_state()
    journal = out.with_suffix(".partial.jsonl")
    known = read_journal(journal, state)
    tests = find_tests(out.with_suffix(".tests.partial.jsonl"), state)
    unfit: set[str] = set()
    while left := [pair for pair in drawn if pair[0].name not in known]:
        with journal.open("a", encoding="utf-8") as stream:
            for number, verdict in enumerate(judge(left, tests, options.processes, unfit), 1):
                known[verdict.name] = verdict
                stream.write(json.dumps({"state": state, **vars(verdict)}) + "\n")
                stream.flush()
                print(f"{number}/{len(left)} {verdict.outcome:8} {verdict.name[:150]}", flush=True)
        unfit |= find_unfit({verdict.test for verdict in known.values()} - {""})
        known = {name: verdict for name, verdict in known.items() if verdict.test not in unfit}
    return [known[mutant.name] for mutant, _ in drawn]


def find_unfit(names: Iterable[str]) -> set[str]:
    """Return the tests that fail in a process like those of the faults without any; what they say does not count."""
    left, found = set(names), set[str]()
    while left and (answer := ask(try_mutant, None, "", sorted(left)))[0]:
        if not answer[1]:
            raise RuntimeError(f"Expected tests to run without a fault, but pytest ended with {answer[0]}.")
        found.add(answer[1])
        left -= found
    return found


def main(options: argparse.Namespace) -> int:
    for module in PRELOADED:
        importlib.import_module(module)
    sample, population = draw(options.seed, options.mutants or (QUICK_MUTANTS if options.quick else MUTANTS))
    penalties = [] if options.quick else list_penalties()
    out = choose_out(options, RESULT)
    verdicts = try_all([*penalties, *sample], options, out)
    reasons = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    result = {
        "command": f"python benchmarks/mutation.py --mutants {len(sample)} --seed {options.seed}",
        "environment": describe_environment(("torch", "mutmut", "libcst", "pytest"), seeds=[options.seed]),
        "faults": population,
        "sample": summarize(verdicts[len(penalties) :], reasons),
        "penalties": summarize(verdicts[: len(penalties)], reasons) if penalties else None,
    }
    write_atomic(out, json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    parser = create_parser(__doc__)
    parser.add_argument("--mutants", type=int, default=None, help="size of the sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--processes", type=int, default=1, help="faults tried at a time")
    sys.exit(main(parser.parse_args()))
