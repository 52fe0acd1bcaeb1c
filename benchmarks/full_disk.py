"""Let `train`, `explain`, `evaluate`, `prepare` and `export` run out of disk at many points; then give them room.

    python benchmarks/full_disk.py [--quick] [--sizes 8] [--commands explain train ... [--keep]]

The folder of results is a small file system of its own, in memory, whose size is a share of what the command writes
when it has room. There the command has to end with exit code 2 and a line that says that the disk is full, and every
file under a final name has to be whole. Then the file system grows and the same command runs again: its results have
to be those of a run that had room from the start, as in `crash_safety.py`. Needs the right to mount. Writes
`benchmarks/results/full_disk.json`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from crash_safety import (
    COMMANDS,
    PRELOADED,
    SEED,
    find_torn,
    list_words,
    make_and_leave,
    merge_rows,
    start,
    summarize,
    wait,
)
from environment import describe_environment
from options import choose_out, create_parser

from softcam.files import write_atomic

RESULT = Path(__file__).parent / "results" / "full_disk.json"
SIZES, QUICK_SIZES = 8, 1
PAGE = 4096
PLENTY = "512m"


@dataclass
class Outcome:
    """What came of a command.

    Args:
        command: Its name.
        kib: What it writes when it has room.
        sizes: How many file systems were too small for it.
        fitted: How many were not.
        unclear: What it said where that was no line about the disk.
        torn: Files under a final name that were not whole.
        different: Results that differ from those of a run with room.
    """

    command: str
    kib: int
    sizes: int = 0
    fitted: int = 0
    unclear: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[None]:
    """Mount a file system of so many bytes."""
    path.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(path)], check=False)


def enlarge(path: Path) -> None:
    _mount("-o", f"remount,size={PLENTY}", str(path))


def _mount(*words: str) -> None:
    done = subprocess.run(["/bin/mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"Expected the right to mount a file system, but: {done.stderr.strip()}")


def run(root: Path, command: str, out: Path, log: Path) -> tuple[int | None, str]:
    """Return a command's exit code and what it said."""
    log.unlink(missing_ok=True)
    code = wait(start(list_words(root, command, out), log), None)
    return code, log.read_text(encoding="utf-8") if log.exists() else ""


def try_size(root: Path, outcome: Outcome, size: int, expected: tuple[int | None, dict[str, str]]) -> None:
    """Run a command on a file system of so many bytes, then on a larger one."""
    disk, log = root / f"{outcome.command}-{size}", root / f"{outcome.command}.log"
    with small_disk(disk, size):
        out = disk / "out"
        code, said = run(root, outcome.command, out, log)
        if code == expected[0]:
            outcome.fitted += 1
            return
        outcome.sizes += 1
        last = said.strip().rpartition("\n")[2]
        if code != 2 or not last.startswith("softcam: ") or "disk is full" not in last or "Traceback" in said:
            outcome.unclear.append(f"{size} bytes, exit code {code}: {last[:300]}")
        outcome.torn += find_torn(out)
        enlarge(disk)
        code, said = run(root, outcome.command, out, log)
        if code != expected[0]:
            outcome.different.append(f"{size} bytes, then room: exit code {code}: {said[-300:]}")
            return
        found = summarize(out)
        names = (name for name in expected[1].keys() | found.keys() if expected[1].get(name) != found.get(name))
        outcome.different += [f"{size} bytes: {name}" for name in sorted(names)]


def measure(root: Path, command: str, count: int) -> Outcome:
    """Run a command with room, then on file systems that are too small for it by more and by less."""
    reference = root / f"{command}-whole"
    code, said = run(root, command, reference, root / f"{command}.log")
    if code not in (0, 1):
        raise RuntimeError(f"{command} ended with {code}: {said[-2000:]}")
    pages = sum(-(-path.stat().st_size // PAGE) for path in reference.rglob("*") if path.is_file())
    outcome = Outcome(command, pages * PAGE // 1024)
    for step in range(count):
        try_size(root, outcome, PAGE * max(2, round(pages * (step + 0.5) / count)), (code, summarize(reference)))
    return outcome


def main(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    for module in PRELOADED:
        importlib.import_module(module)
    count = options.sizes or (QUICK_SIZES if options.quick else SIZES)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        # In a process of its own: what torch starts for gradients does not survive a fork.
        if os.waitpid(child := os.fork() or make_and_leave(root), 0)[1]:
            raise RuntimeError(f"Expected inputs in {root} from process {child}, but it failed.")
        for command in options.commands:
            outcomes.append(measure(root, command, count))
            print(outcomes[-1], flush=True)
            write_result(options, outcomes)
    return int(any(outcome.unclear or outcome.torn or outcome.different for outcome in outcomes))


def write_result(options: argparse.Namespace, outcomes: Sequence[Outcome]) -> None:
    out, environment = choose_out(options, RESULT), describe_environment(seeds=[SEED])
    rows = merge_rows([vars(outcome) for outcome in outcomes], out if options.keep else None, environment["date"])
    result = {"command": "python benchmarks/full_disk.py", "environment": environment, "rows": rows}
    write_atomic(out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    parser = create_parser(__doc__)
    parser.add_argument("--sizes", type=int, default=None, help="of file systems, for each command")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--keep", action="store_true", help="leave what was measured of other commands in the results")
    sys.exit(main(parser.parse_args()))
