"""End `train`, `explain`, `evaluate`, `prepare` and `export` with SIGKILL at random moments; compare what comes of it.

    python benchmarks/crash_safety.py [--quick] [--kills 25] [--commands explain train ... [--keep]]

Each command first runs undisturbed. Then it is begun, killed at a random moment and begun again in the same folder,
over and over; when it has finished, in a new folder, until there were as many kills as asked for. After each kill every
file under a final name has to be whole; after each finished run all results have to be those of the undisturbed one,
byte for byte but for times and durations. A parent that has loaded the libraries forks the processes, so that they are
killed at work and not while they start. Writes `benchmarks/results/crash_safety.json`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import io
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before torch is loaded: sums on several threads differ in their last bits from run to run.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from environment import describe_environment
from options import choose_out, create_parser
from PIL import Image

import softcam
from softcam.cli import main as run_command
from softcam.files import write_atomic
from softcam.imaging import Preprocessing

RESULT = Path(__file__).parent / "results" / "crash_safety.json"
KILLS, QUICK_KILLS = 25, 2
SEED = 0
PRELOADED = (
    "softcam.predict", "softcam.training", "softcam.evaluation", "softcam.reporting.explanations", "softcam.demo",
    "softcam.data.sources", "softcam.export", "timm", "lightning", "onnxscript", "pytorch_grad_cam",
)  # fmt: skip
COMMANDS = ("explain", "prepare", "evaluate", "train", "export")

_VOLATILE = {
    "seconds", "date", "time", "duration", "started", "finished", "generated", "created", "epoch_seconds", "minutes",
    "per_second", "images_per_second", "reason", "signature", "digest", "previous", "head", "wall_seconds", "hardware",
    "training_seconds", "seconds_per_map",
}  # fmt: skip
# In texts, and in the report's list of how long each stage took; settings are compared in the JSON files.
_TIMES = re.compile(
    rb"\d{4}-\d\d-\d\d[T ]?[\d:+Z.]*|\d+(\.\d+)? (s|seconds|minutes|min)\b|<div><dt>[^<]*</dt><dd>[\d.e-]+</dd></div>"
)
RECIPE = """\
name: tiny
seed: 3
data: {{source: {source}, image_size: 64, batch_size: 8}}
model: {{backbone: "timm:resnet10t", weights: none}}
penalty: {{l1: 1.0e-4}}
optimizer: {{lr: 0.003}}
stages:
  - {{epochs: 4}}
"""


@dataclass
class Outcome:
    """What came of a command.

    Args:
        command: Its name.
        seconds: Of the undisturbed run.
        kills: How often it was ended.
        finished: How many runs came to their end.
        torn: Files under a final name that were not whole after a kill.
        different: Results that differ from the undisturbed run's.
    """

    command: str
    seconds: float
    kills: int = 0
    finished: int = 0
    torn: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def draw(path: Path, number: int) -> None:
    noise = np.random.default_rng(number).integers(0, 90, (48, 56, 3), dtype=np.uint8)
    if number % 2:
        noise[12:30, 20:38] += 140
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


def make_inputs(root: Path) -> None:
    """Write images with a manifest, a recipe, a model, keys and a download to prepare."""
    rows = ["image,label,patient,split"]
    for number in range(72):
        draw(root / "images" / f"{number:02d}.png", number)
        split = "train" if number < 40 else "val" if number < 52 else "test"
        rows.append(f"images/{number:02d}.png,{'square' if number % 2 else 'blank'},p{number // 2},{split}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "images" / "bad.png").write_bytes(b"words")
    (root / "recipe.yaml").write_text(RECIPE.format(source=root / "manifest.csv"), encoding="utf-8")
    torch.manual_seed(SEED)
    black_box = softcam.create_black_box("timm:resnet10t", weights="none", num_classes=2).eval()
    preprocessing = Preprocessing(size=64).to_dict()
    softcam.save(softcam.convert(black_box), root / "model", classes=["blank", "square"], preprocessing=preprocessing)
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        for number in range(40):
            stream = io.BytesIO()
            rows_, columns = np.mgrid[:90, :120] + 0.5
            disc = np.hypot(columns - 60, rows_ - 45) < 40
            pixels = np.random.default_rng(number).integers(80, 160, (90, 120, 3), dtype=np.uint8) * disc[..., None]
            Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG")
            archive.writestr(f"train/{number // 2}_{'left' if number % 2 else 'right'}.jpeg", stream.getvalue())
    (root / "download").mkdir()
    (root / "train.zip").rename(root / "download" / "train.zip")
    lines = [f"{number // 2}_{'left' if number % 2 else 'right'},{number % 5}" for number in range(40)]
    with zipfile.ZipFile(root / "download" / "trainLabels.csv.zip", "w") as archive:
        archive.writestr("trainLabels.csv", "image,level\n" + "\n".join(lines) + "\n")


def make_and_leave(root: Path) -> int:
    try:
        make_inputs(root)
    except BaseException as error:  # noqa: BLE001 - a child must never go on as its parent
        os.write(2, repr(error).encode())
        os._exit(1)
    os._exit(0)


def list_words(root: Path, command: str, out: Path) -> list[str]:
    """Return the words of a command that writes into a folder."""
    words: dict[str, list[Any]] = {
        "explain": ["explain", root / "model", root / "images", "--out", out, "--batch-size", 4, "--backend", "torch"],
        "prepare": ["data", "prepare", "kaggle-dr", root / "download", "--out", out, "--size", 64, "--workers", 2],
        "evaluate": [
            *("evaluate", root / "model", "--data", root / "manifest.csv", "--out", out, "--explained", 8),
            *("--methods", "evidence", "grad_cam", "edges", "--engine", "torch"),
        ],
        "train": ["train", "--config", root / "recipe.yaml", "--out", out],
        "export": ["export", root / "model", "--format", "onnx", "--out", out / "model.onnx"],
    }
    return [str(word) for word in words[command]]


def start(words: Sequence[str], log: Path) -> int:
    """Fork a process that runs a command; return its number."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        code = run_command(words)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:  # noqa: BLE001 - a child must never go on as its parent
        os.write(2, repr(error).encode())
        code = 70
    os._exit(code)


def wait(child: int, seconds: float | None) -> int | None:
    """Return the exit code of a process that ended in time, else end it and all of its own and return None."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.001)


def is_final(path: Path) -> bool:
    """Return whether a name below a folder of results is one that a reader may trust."""
    return not any(".partial" in part or part.startswith(".") for part in path.parts)


def find_torn(out: Path) -> list[str]:
    """Return the files under a final name that cannot be read."""
    torn = []
    for path in sorted(out.rglob("*")):
        if not path.is_file() or not is_final(path.relative_to(out)):
            continue
        try:
            READERS.get(path.suffix, Path.read_bytes)(path)
        except Exception as error:  # noqa: BLE001 - whatever a reader says, the file is not whole
            torn.append(f"{path.relative_to(out)}: {type(error).__name__}")
    return torn


def read_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def read_arrays(path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            arrays[name].sum() if arrays[name].dtype.kind == "f" else arrays[name]


def read_tensors(path: Path) -> None:
    from safetensors.torch import load_file  # noqa: PLC0415 - of this reader alone

    load_file(path)


def read_graph(path: Path) -> None:
    import onnx  # noqa: PLC0415 - of this reader alone

    onnx.checker.check_model(str(path))


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".csv": lambda path: list(csv.reader(path.read_text(encoding="utf-8").splitlines(), strict=True)),
    ".png": read_image,
    ".npz": read_arrays,
    ".safetensors": read_tensors,
    ".onnx": read_graph,
}


def digest(path: Path) -> str:
    """Return what a file says, without what differs from run to run."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(_steady(json.loads(content)), sort_keys=True)
    if path.suffix in (".html", ".md", ".yaml"):
        content = _TIMES.sub(b"", content)
    if path.suffix == ".csv" and path.name == "metrics.csv":
        return json.dumps([_steady(row) for row in csv.DictReader(io.StringIO(content.decode()))], sort_keys=True)
    return hashlib.sha256(content).hexdigest()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _steady(own) for name, own in value.items() if not _VOLATILE.intersection({name, name.split("/")[-1]})
        }
    return [_steady(own) for own in value] if isinstance(value, list) else value


def summarize(out: Path) -> dict[str, str]:
    """Return the digest of every result; of what a command keeps for itself, nothing."""
    skipped = ("checkpoints/", "logs/", "cache/", "measured/", "tensorboard/")
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and is_final(path.relative_to(out))]
    names = {path.relative_to(out).as_posix(): path for path in paths}
    return {name: digest(path) for name, path in names.items() if not name.startswith(skipped)}


def measure(root: Path, command: str, kills: int, chance: random.Random) -> Outcome:
    """Run a command undisturbed, then over and over with kills."""
    log = root / f"{command}.log"
    reference = root / f"{command}-whole"
    begun = time.monotonic()
    code = wait(start(list_words(root, command, reference), log), None)
    outcome = Outcome(command, round(time.monotonic() - begun, 2))
    if code not in (0, 1):
        raise RuntimeError(f"{command} ended with {code}: {log.read_text(encoding='utf-8')[-2000:]}")
    expected = summarize(reference)
    longest = time.monotonic() + 60 * max(outcome.seconds, 1) + 40 * kills
    while outcome.kills < kills or outcome.finished == 0:
        out = root / f"{command}-{outcome.finished}"
        while time.monotonic() < longest:
            seconds = chance.uniform(0, outcome.seconds) if outcome.kills < kills else None
            ended = wait(start(list_words(root, command, out), log), seconds)
            if ended is None:
                outcome.kills += 1
                outcome.torn += find_torn(out)
                continue
            if ended != code:
                outcome.different.append(f"exit code {ended}: {log.read_text(encoding='utf-8')[-300:]}")
                return outcome
            break
        else:
            outcome.different.append("no run came to its end")
            return outcome
        outcome.finished += 1
        found = summarize(out)
        outcome.different += sorted(
            f"{name}: {'missing' if name not in found else 'new' if name not in expected else 'other content'}"
            for name in expected.keys() | found.keys()
            if expected.get(name) != found.get(name)
        )
    return outcome


def write_result(options: argparse.Namespace, kills: int, outcomes: Sequence[Outcome]) -> None:
    out, environment = choose_out(options, RESULT), describe_environment(seeds=[SEED])
    rows = merge_rows([vars(outcome) for outcome in outcomes], out if options.keep else None, environment["date"])
    result = {
        "command": "python benchmarks/crash_safety.py",
        "environment": environment,
        "kills": kills,
        "rows": rows,
    }
    write_atomic(out, json.dumps(result, indent=2) + "\n")


def merge_rows(measured: Sequence[dict[str, Any]], kept: Path | None, date: str) -> list[dict[str, Any]]:
    """Return a dated row for each command, of those that were measured now and of those in a file of results."""
    before = json.loads(kept.read_text(encoding="utf-8")) if kept is not None and kept.is_file() else {"rows": []}
    rows = {row["command"]: {"date": before["environment"]["date"], **row} for row in before["rows"]}
    rows |= {row["command"]: {**row, "date": date} for row in measured}
    return [rows[command] for command in COMMANDS if command in rows]


def main(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    for module in PRELOADED:
        importlib.import_module(module)
    kills = options.kills or (QUICK_KILLS if options.quick else KILLS)
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        # In a process of its own: what torch starts for gradients does not survive a fork.
        if os.waitpid(child := os.fork() or make_and_leave(root), 0)[1]:
            raise RuntimeError(f"Expected inputs in {root} from process {child}, but it failed.")
        for command in options.commands:
            outcome = measure(root, command, kills, random.Random(SEED))  # noqa: S311 - moments, no secrets
            print(outcome, flush=True)
            outcomes.append(outcome)
            # After each command, since all of them take half an hour.
            write_result(options, kills, outcomes)
    return int(any(outcome.torn or outcome.different for outcome in outcomes))


if __name__ == "__main__":
    parser = create_parser(__doc__)
    parser.add_argument("--kills", type=int, default=None, help="of each command")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--keep", action="store_true", help="leave what was measured of other commands in the results")
    sys.exit(main(parser.parse_args()))
