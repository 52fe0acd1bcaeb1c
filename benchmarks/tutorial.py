"""Do the tutorial as a reader does and keep how long each step takes: `python benchmarks/tutorial.py`.

The blocks of `docs/tutorial/first-hour.md` run word for word and one after the other in one shell, in a fresh copy of
the checkout and a fresh virtual environment. `tests/docs/test_tutorial.py` runs the same blocks on fewer images.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from environment import describe_environment

from softcam.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial" / "first-hour.md"
RESULTS = Path(__file__).parent / "results"
READY = "http://127.0.0.1:8000/readyz"
SERVICE = "softcam serve"
PATIENCE = 180


@dataclass(frozen=True)
class Block:
    """A block of the page.

    Args:
        step: Heading of the section that it stands in.
        language: `bash` or `python`.
        text: What is to be typed.
    """

    step: str
    language: str
    text: str


@dataclass(frozen=True)
class Taken:
    """What a step took.

    Args:
        step: Its heading.
        seconds: On the clock.
        cpu_seconds: Of all cores together.
    """

    step: str
    seconds: float
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="keep the folder of the tutorial here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch) / "checkout"
        copy_checkout(folder)
        busy, started = read_processor(), time.perf_counter()
        taken = list(do_tutorial(folder, read_blocks(), environment=os.environ))
        others = share_of_others(busy, read_processor(), sum(step.cpu_seconds for step in taken))
    result = {
        "command": "python benchmarks/tutorial.py",
        "environment": describe_environment(seeds=[0]),
        "seconds": round(time.perf_counter() - started, 1),
        "others": round(others, 3),
        "steps": [asdict(step) for step in taken],
    }
    write_atomic(RESULTS / "tutorial.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("seconds", "others")}, indent=2))


def copy_checkout(folder: Path) -> None:
    """Write the files that git knows, as they are now, to a new folder."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())


def read_blocks(page: Path = PAGE) -> list[Block]:
    """Return what the page tells to type, in its order."""
    found, step = [], ""
    pattern = r"^## (?P<step>[^\n]*)$|^```(?P<language>bash|python)\n(?P<text>.*?)^```"
    for match in re.finditer(pattern, page.read_text(encoding="utf-8"), re.M | re.S):
        if match["step"]:
            step = match["step"]
        else:
            found.append(Block(step, match["language"], match["text"]))
    return found


def do_tutorial(folder: Path, blocks: list[Block], *, environment: Mapping[str, str]) -> Iterator[Taken]:
    """Run blocks in one shell and yield what each step took."""
    with Shell(folder, environment) as shell:
        for step in dict.fromkeys(block.step for block in blocks):
            started, cpu = time.perf_counter(), shell.cpu_seconds()
            for block in blocks:
                if block.step == step:
                    shell.run(block)
            yield Taken(step, time.perf_counter() - started, shell.cpu_seconds() - cpu)


class Shell:
    """One shell for all blocks, as a reader has it; what they say goes to `tutorial.log`.

    Args:
        folder: Where it works.
        environment: Its variables.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / "tutorial.log"
        self.process = subprocess.Popen(
            ["bash", "-e"], cwd=folder, env=dict(environment), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()

    def run(self, block: Block) -> None:
        """Run a block to its end; a service is asked whether it is ready, and ended.

        Raises:
            RuntimeError: If a command fails; the message has its last words.
        """
        text = f"python - <<'END'\n{block.text}END" if block.language == "python" else block.text
        if text.startswith(SERVICE):
            self._type(f"{text.rstrip()} >>tutorial.log 2>&1 &")
            wait_until_ready()
            # Without job control, a command in the background does not listen to the keyboard's interrupt.
            text = "kill %1\nwait %1 || true"
        self._type(f"{{\n{text}\n}} >>tutorial.log 2>&1\necho done")
        if self.process.stdout is None or self.process.stdout.readline() != "done\n":
            raise RuntimeError(f"Expected the tutorial to work, but:\n{block.text}\n{self.log.read_text()[-3000:]}")

    def cpu_seconds(self) -> float:
        """Return the time of all cores that finished commands took."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def _type(self, text: str) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(f"{text}\n")
            self.process.stdin.flush()


def wait_until_ready() -> None:
    """Wait until the service answers.

    Raises:
        RuntimeError: If it does not within minutes.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(READY, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"Expected the service to be ready within {PATIENCE} s, but it was not.")


def read_processor() -> tuple[float, float]:
    """Return the seconds that all cores were busy, and those that passed on them."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    scale = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / scale, sum(ticks) / scale


def share_of_others(before: tuple[float, float], after: tuple[float, float], own: float) -> float:
    """Return the share of the cores that others used meanwhile, in [0, 1]."""
    busy, passed = (now - then for now, then in zip(after, before, strict=True))
    return max(0.0, busy - own) / passed


def describe(result: Mapping[str, Any]) -> str:
    """Return the table of the page."""
    machine = result["environment"]["machine"]
    lines = [
        (
            f"Measured (`python benchmarks/tutorial.py`): {result['seconds'] / 60:.0f} minutes in all on "
            f"{machine['cores']} cores, of which other programs used {result['others']:.0%} meanwhile."
        ),
        "",
        "| step | minutes | core minutes |",
        "|---|---|---|",
    ]
    lines += [
        f"| {step['step']} | {_minutes(step['seconds'])} | {_minutes(step['cpu_seconds'])} |"
        for step in result["steps"]
    ]
    return "\n".join(lines) + "\n"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


if __name__ == "__main__":
    main()
